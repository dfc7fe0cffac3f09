// Package dbfactory makes what tests need in the database, with defaults for
// what they do not care about. Everything goes through the same code as real
// activity, so fixtures have their history, ledger entries, and events.
package dbfactory

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"truegreen/internal/activity"
	"truegreen/internal/money"
	"truegreen/internal/wallet"
)

// Epoch is when fixtures happen unless told otherwise: Monday 2026-11-02, 00:00
// UTC. Agents and players register then.
func Epoch() time.Time { return time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC) }

// Apply applies lines in tx, and fails the test if they do not apply.
func Apply(ctx context.Context, t testing.TB, tx pgx.Tx, lines ...activity.Line) activity.Result {
	t.Helper()
	result, err := activity.New(wallet.New()).Apply(ctx, tx, lines)
	if err != nil {
		t.Fatalf("apply fixtures: %v", err)
	}
	return result
}

// AgentOpts are what an agent may have; empty fields get defaults.
type AgentOpts struct {
	At         time.Time // defaults to [Epoch]
	Code       string    // defaults to a new one
	Parent     string    // defaults to none
	RollingPPM money.RatePPM
}

// Agent adds an agent and returns its code.
func Agent(ctx context.Context, t testing.TB, tx pgx.Tx, opts *AgentOpts) string {
	t.Helper()
	if opts == nil {
		opts = &AgentOpts{}
	}
	line := activity.Line{
		Agent:      codeOr(opts.Code, "agent"),
		At:         timeOr(opts.At),
		Parent:     opts.Parent,
		RollingPPM: opts.RollingPPM,
		Type:       activity.TypeAgent,
	}
	Apply(ctx, t, tx, line)
	return line.Agent
}

// PlayerOpts are what a player may have; empty fields get defaults.
type PlayerOpts struct {
	Agent      string          // defaults to none
	At         time.Time       // registration and deposit; defaults to [Epoch]
	Balance    money.Minor     // paid in by one deposit; defaults to none
	Code       string          // defaults to a new one
	Currency   string          // defaults to KRW
	RollingPPM money.RatePPM   // defaults to 0
	Status     activity.Status // defaults to active
	VIP        int32
}

// Player adds a player with a wallet and returns the player's code.
func Player(ctx context.Context, t testing.TB, tx pgx.Tx, opts *PlayerOpts) string {
	t.Helper()
	if opts == nil {
		opts = &PlayerOpts{}
	}
	line := activity.Line{
		Agent:      opts.Agent,
		At:         timeOr(opts.At),
		Currency:   opts.Currency,
		Player:     codeOr(opts.Code, "player"),
		RollingPPM: opts.RollingPPM,
		Status:     opts.Status,
		Type:       activity.TypePlayer,
		VIP:        opts.VIP,
	}
	if line.Currency == "" {
		line.Currency = "KRW"
	}
	if line.Status == "" {
		line.Status = activity.StatusActive
	}
	lines := []activity.Line{line}
	if opts.Balance > 0 {
		lines = append(lines, activity.Line{
			Amount: opts.Balance,
			At:     line.At,
			ID:     newCode("deposit"),
			Player: line.Player,
			Type:   activity.TypeDeposit,
		})
	}
	Apply(ctx, t, tx, lines...)
	return line.Player
}

// BetOpts are what a bet may have; empty fields get defaults.
type BetOpts struct {
	At        time.Time // defaults to [Epoch]
	Category  string    // defaults to slots
	ID        string    // defaults to a new one
	Payout    money.Minor
	Player    string      // required; must have the funds
	SettledAt time.Time   // defaults to At
	Stake     money.Minor // defaults to 1,000
}

// SettledBet adds a bet and its result and returns the bet's id.
func SettledBet(ctx context.Context, t testing.TB, tx pgx.Tx, opts BetOpts) string {
	t.Helper()
	line := activity.Line{
		At:       timeOr(opts.At),
		Category: opts.Category,
		ID:       codeOr(opts.ID, "bet"),
		Player:   opts.Player,
		Stake:    opts.Stake,
		Type:     activity.TypeBet,
	}
	if line.Category == "" {
		line.Category = "slots"
	}
	if line.Stake == 0 {
		line.Stake = 1_000
	}
	result := activity.Line{At: opts.SettledAt, Bet: line.ID, Payout: opts.Payout, Type: activity.TypeResult}
	if result.At.IsZero() {
		result.At = line.At
	}
	Apply(ctx, t, tx, line, result)
	return line.ID
}

func codeOr(code, kind string) string {
	if code == "" {
		return newCode(kind)
	}
	return code
}

func newCode(kind string) string { return kind + "-" + uuid.NewString() }

func timeOr(at time.Time) time.Time {
	if at.IsZero() {
		return Epoch()
	}
	return at
}
