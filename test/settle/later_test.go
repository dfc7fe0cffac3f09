package settle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/settlement"
)

// ask asks for a run of the ordered kind for every programme that has none, as a person
// does: who gets no answer looks for what became of it, and asks again.
func (c *child) ask(ctx context.Context, pool *pgxpool.Pool, service *settlement.Service) error {
	if c.order.Ask == "" {
		return nil
	}
	var failed error
	for range 2 {
		rows, err := pool.Query(ctx, `
			SELECT regular.run_id, regular.programme FROM settlement_results AS regular
			WHERE regular.run_kind = 'regular' AND regular.period = $2 AND NOT EXISTS (
				SELECT FROM settlement_results AS other WHERE other.programme = regular.programme AND other.run_kind = $1)
			ORDER BY regular.run_id`, string(c.order.Ask), c.order.Period)
		if err != nil {
			return fmt.Errorf("look for what is to be asked for: %w", err)
		}
		regulars, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
			RunID int64
			Code  string
		}])
		if err != nil {
			return fmt.Errorf("look for what is to be asked for: %w", err)
		}
		failed = nil
		for _, regular := range regulars {
			if c.order.Ask == runRetry {
				_, err = service.Retry(ctx, settlement.Decision{By: "operator", RunID: regular.RunID})
			} else {
				_, err = service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: regular.Code, Key: c.order.Period})
			}
			failed = errors.Join(failed, err)
		}
		if failed == nil {
			return nil
		}
		c.logger.Warn("not all was answered", slog.Any("error", failed))
	}
	return failed
}

// later is a step that comes in runs of some kinds.
type later struct {
	step

	isAdjusted, isRetried bool
}

// laterSteps are all of retries and adjustments, from the asking to the end. An
// adjustment is planned by a person, and else has the steps of a regular run; a retry
// is made with nothing to calculate.
func laterSteps() map[string]later {
	found := make(map[string]later)
	for name, at := range steps() {
		isRetried := true
		switch at.place.Statement {
		case "SettlementRunInsert":
			name, at.most = strings.Replace(name, "TheTicksCommit", "TheCommitOfAnAdjustment", 1), 3
			isRetried = false
		case "SettlementRunCalculating", statementActivity, statementItems:
			isRetried = false
		}
		found[name] = later{isAdjusted: true, isRetried: isRetried, step: at}
	}
	retries := func(at moment, statement string) later {
		return later{isRetried: true, step: step{most: 3, place: place{at, statement}}}
	}
	found["BeforeTheCommitOfARetry"] = retries(momentAfter, "SettlementRunInsertRetry")
	found["WhileTheCommitOfARetryIsOnItsWay"] = retries(momentOnItsWay, "SettlementRunInsertRetry")
	found["AfterTheCommitOfARetry"] = retries(momentCommitted, "SettlementRunInsertRetry")
	found["BeforeTheParentIsAcknowledged"] = retries(momentBefore, "SettlementRunAcknowledgeDelivered")
	found["BeforeTheCommitThatAcknowledgesTheParent"] = retries(momentAfter, "SettlementRunAcknowledgeDelivered")
	found["AfterTheParentIsAcknowledged"] = retries(momentCommitted, "SettlementRunAcknowledgeDelivered")
	return found
}

// TestSettlement_LaterKilledAtAStep kills a process that retries what the regular runs
// left, and one that adjusts them, and lets another go on.
func TestSettlement_LaterKilledAtAStep(t *testing.T) {
	t.Parallel()

	for name, at := range laterSteps() {
		t.Run(name+"CreditsEverybodyOnce", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			for turn := range uint64(times(1)) {
				w := setup(ctx, t, uint64(len(name))+100*turn, 24)
				w.settleLater(ctx, t, at, func(o order) {
					w.killOnce(ctx, t, o)
					w.settle(ctx, t)
				})
			}
		})
	}
}

// TestSettlement_LaterCommitWithoutAnswer cuts connections of retries and adjustments,
// and of who asks for them, whose commit is done and not answered.
func TestSettlement_LaterCommitWithoutAnswer(t *testing.T) {
	t.Parallel()

	for name, at := range laterSteps() {
		if at.place.Moment != momentOnItsWay {
			continue
		}
		t.Run(name+"CreditsEverybodyOnce", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, uint64(len(name)), 24)
			w.settleLater(ctx, t, at, func(o order) { w.cutOnce(ctx, t, o) })
		})
	}
}

// settleLater settles the month, and lets something befall a process in the retries
// and in the adjustments that follow, as far as they come to the step.
func (w *world) settleLater(ctx context.Context, t *testing.T, at later, befall func(order)) {
	t.Helper()
	if at.isRetried {
		w.settleInPart(ctx, t)
		befall(w.laterOrder(at.step))
		w.requireSettled(ctx, t)
	} else {
		w.settle(ctx, t)
	}
	if at.isAdjusted {
		w.playLate(ctx, t)
		w.follow(runAdjustment)
		befall(w.laterOrder(at.step))
		w.requireSettled(ctx, t)
	}
}

// settleInPart settles the month of players some of whom are frozen, and leaves the rest
// to retries: they are not frozen any more.
func (w *world) settleInPart(ctx context.Context, t *testing.T) {
	t.Helper()
	w.setStatus(ctx, t, "frozen", 1)
	w.ends = []string{"regular partial"}
	w.settle(ctx, t)
	w.setStatus(ctx, t, "active", 2)
	w.follow(runRetry)
}

// follow has processes ask for runs of a kind, which are to deliver all.
func (w *world) follow(kind runKind) {
	w.ask = kind
	w.ends = append(w.ends, string(kind)+" all_delivered")
}

// laterOrder has chunks that are small enough for the step to come as often as in the
// regular runs.
func (w *world) laterOrder(at step) order {
	o := w.orderOf(at)
	o.ChunkSize = 2
	return o
}

// setStatus changes the status of two players in three.
func (w *world) setStatus(ctx context.Context, t *testing.T, status string, second int) {
	t.Helper()
	var lines strings.Builder
	for n := range w.played {
		if n%3 > 0 {
			fmt.Fprintf(&lines, `{"type":"player","player":"%s","agent":null,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"%s","at":"%s"}`+"\n",
				w.played[n].code, status, instant(time.Duration(second)*time.Second))
		}
	}
	w.bring(ctx, t, status, lines.String())
}

// playLate brings another deposit and another bet of four players in five, after the
// month is settled, and works out what they are owed beyond what they have.
func (w *world) playLate(ctx context.Context, t *testing.T) {
	t.Helper()
	const more = 500
	var lines strings.Builder
	for n := range w.played {
		if n%5 == 0 {
			continue
		}
		p := &w.played[n]
		before, payout := p.owed(), w.random.Int64N(more*6/5)
		fmt.Fprintf(&lines, `{"type":"deposit","id":"late-%[1]s","player":"%[1]s","amount":%[2]d,"at":"%[4]s"}
{"type":"bet","id":"late-%[1]s","player":"%[1]s","category":"slots","stake":%[2]d,"at":"%[5]s"}
{"type":"result","bet":"late-%[1]s","payout":%[3]d,"at":"%[6]s"}
`, p.code, more, payout, instant(36*time.Hour), instant(60*time.Hour), instant(60*time.Hour+5*time.Second))
		p.stake, p.payout = p.stake+more, p.payout+payout
		w.wallets[p.code] += payout
		for programme, amount := range p.owed() {
			adj := 0
			if before[programme] > 0 {
				adj = 1
			}
			w.owe(programme, p.code, adj, amount-before[programme])
		}
	}
	w.bring(ctx, t, "late", lines.String())
}
