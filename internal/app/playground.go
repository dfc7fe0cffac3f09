package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/activity"
	"truegreen/internal/devstack/sample"
	"truegreen/internal/wallet"
)

const (
	// liveInterval is how often live traffic comes.
	liveInterval = 200 * time.Millisecond

	// maxLivePlayers bounds who takes part in it.
	maxLivePlayers = 100_000

	// sampleFile remembers which sample belongs to a database, in the stack's data
	// folder: an import that was interrupted goes on with the same one.
	sampleFile = "sample.json"
)

// playground fills a development database and keeps it lively.
type playground struct {
	activity *activity.Service
	stack    *devStack
	wallets  *wallet.Service
}

func newPlayground(stack *devStack) *playground {
	wallets := wallet.New()
	return &playground{activity: activity.New(wallets), stack: stack, wallets: wallets}
}

// run imports a data set, unless that was done before or the database has players
// from elsewhere, and plays live traffic until ctx is done.
func (playground *playground) run(ctx context.Context) error {
	database, err := openDatabase(ctx, playground.stack.databaseURL)
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, database, 4, "truegreen sample", nil)
	if err != nil {
		return err
	}
	defer pool.Close()
	end, err := playground.fill(ctx, pool)
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted; the next start goes on
		}
		return fmt.Errorf("import sample activity: %w", err)
	}
	service, err := playground.promote(ctx, pool, end)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("settle sample activity: %w", err)
	}
	if service != nil {
		var telling sync.WaitGroup
		defer telling.Wait()
		telling.Go(func() { playground.tellSettlements(ctx, service) })
	}
	if err := playground.live(ctx, pool); err != nil && ctx.Err() == nil {
		return fmt.Errorf("play live traffic: %w", err)
	}
	return nil
}

// sampleState is what sampleFile says.
type sampleState struct {
	End      time.Time `json:"end"` // of the sample's activity; with it, the sample is the same again
	Imported bool      `json:"imported"`
}

// fill imports the data set, and returns when its activity ends.
func (playground *playground) fill(ctx context.Context, pool *pgxpool.Pool) (time.Time, error) {
	path := filepath.Join(playground.stack.dataDir, sampleFile)
	state, err := readSampleState(path)
	if err != nil {
		return time.Time{}, err
	}
	balances, err := playground.wallets.Balances(ctx, pool, string(activity.StatusActive), 1)
	if err != nil {
		return time.Time{}, err
	}
	// The file may speak of another database than the one that is named now.
	hasPlayers := len(balances) > 0
	if state.End.IsZero() || (state.Imported && !hasPlayers) {
		state = sampleState{End: time.Now().Truncate(time.Millisecond), Imported: hasPlayers}
		if err := writeSampleState(path, state); err != nil {
			return time.Time{}, err
		}
	}
	if state.Imported {
		return state.End, nil
	}

	say := playground.stack.say
	say("importing sample activity: about 300,000 lines of a few thousand players, two closed weeks; a minute or two")
	started := time.Now()
	reader, writer := io.Pipe()
	defer func() { _ = reader.Close() }()
	go func() {
		_, err := sample.Write(ctx, writer, sample.Config{End: state.End})
		_ = writer.CloseWithError(err)
	}()
	result, err := playground.activity.Import(ctx, pool, "sample activity", reader, activity.ImportOptions{Progress: tellProgress(say, time.Now)})
	if err != nil {
		return time.Time{}, err
	}
	say("imported %d lines of sample activity in %s; live traffic goes on", result.NumLines, time.Since(started).Round(100*time.Millisecond))
	state.Imported = true
	return state.End, writeSampleState(path, state)
}

// progressInterval is how often an import that takes long says how far it is.
const progressInterval = 5 * time.Second

// tellProgress says now and then how many lines are imported.
func tellProgress(say func(format string, args ...any), now func() time.Time) func(activity.ImportProgress) {
	started := now()
	told := started
	return func(progress activity.ImportProgress) {
		if now().Sub(told) < progressInterval {
			return
		}
		told = now()
		say("imported %d lines so far, in %s", progress.NumLines, told.Sub(started).Round(time.Second))
	}
}

// live plays until ctx is done. What cannot be applied is tried again: the
// database may be away for a while.
func (playground *playground) live(ctx context.Context, pool *pgxpool.Pool) error {
	balances, err := playground.wallets.Balances(ctx, pool, string(activity.StatusActive), maxLivePlayers)
	if err != nil {
		return err
	}
	players := make([]sample.Player, len(balances))
	for i, balance := range balances {
		players[i] = sample.Player{Balance: balance.Balance, Code: balance.Player, Currency: balance.Currency}
	}
	source, err := sample.NewLive(players, sample.LiveConfig{Start: time.Now()})
	if err != nil {
		return err
	}

	ticker := time.NewTicker(liveInterval)
	defer ticker.Stop()
	var lines []activity.Line
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if !failing {
				lines = source.Next(now)
			}
		}
		if len(lines) == 0 {
			continue
		}
		_, err := playground.activity.Submit(ctx, pool, lines)
		if err != nil && !failing && ctx.Err() == nil {
			playground.stack.actions.logger.WarnContext(ctx, "live traffic fails, trying again", slog.Any("error", err))
		}
		failing = err != nil
	}
}

func readSampleState(path string) (sampleState, error) {
	var state sampleState
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("read state of the sample: %w", err)
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return state, fmt.Errorf("read state of the sample in %s: %w: remove the file, or start over with --fresh", path, err)
	}
	return state, nil
}

func writeSampleState(path string, state sampleState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("write state of the sample: %w", err)
	}
	return writeWhole(path, append(text, '\n'))
}
