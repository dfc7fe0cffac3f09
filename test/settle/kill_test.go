package settle_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// step is a place with the most times that a process of a small world surely comes
// there.
type step struct {
	isSliced bool
	most     int
	place    place
}

// steps are all of a settlement, from its tick to its end.
func steps() map[string]step {
	runs := func(at moment, statement string) step { return step{most: 3, place: place{at, statement}} }
	chunks := func(at moment) step { return step{most: 9, place: place{at, "SettlementItemCredit"}} }
	slices := func(at moment, statement string) step {
		return step{isSliced: true, most: 6, place: place{at, statement}}
	}
	return map[string]step{
		"BeforeTheTicksCommit":                 runs(momentAfter, "SettlementRunInsert"),
		"WhileTheTicksCommitIsOnItsWay":        {most: 1, place: place{momentOnItsWay, "SettlementRunInsert"}},
		"AfterTheTicksCommit":                  {most: 1, place: place{momentCommitted, "SettlementRunInsert"}},
		"BeforeTheRunIsTaken":                  runs(momentBefore, "SettlementRunTake"),
		"BeforeTheCommitThatTakesTheRun":       runs(momentAfter, "SettlementRunTake"),
		"AfterTheRunIsTaken":                   runs(momentCommitted, "SettlementRunTake"),
		"BeforeTheCommitOfTheBeginning":        runs(momentAfter, "SettlementRunCalculating"),
		"AfterTheBeginning":                    runs(momentCommitted, "SettlementRunCalculating"),
		"WithinTheCalculationsReading":         runs(momentAfter, statementActivity),
		"WithinTheCalculationsWriting":         runs(momentAfter, statementItems),
		"BeforeTheCalculationsCommit":          runs(momentAfter, "SettlementRunApprove"),
		"WhileTheCalculationsCommitIsOnItsWay": runs(momentOnItsWay, "SettlementRunApprove"),
		"AfterTheCalculationsCommit":           runs(momentCommitted, "SettlementRunApprove"),
		"BeforeTheCommitThatBeginsAPass":       runs(momentAfter, "SettlementRunBeginPass"),
		"AfterAPassIsBegun":                    runs(momentCommitted, "SettlementRunBeginPass"),
		"BeforeAChunk":                         chunks(momentBefore),
		"WithinAChunk":                         chunks(momentAfter),
		"WhileAChunksCommitIsOnItsWay":         chunks(momentOnItsWay),
		"AfterAChunk":                          chunks(momentCommitted),
		"WithinTheFinaliser":                   runs(momentAfter, "SettlementItemUnbooked"),
		"BeforeTheFinalisersCommit":            runs(momentAfter, "SettlementRunFinish"),
		"WhileTheFinalisersCommitIsOnItsWay":   runs(momentOnItsWay, "SettlementRunFinish"),
		"AfterTheFinaliser":                    runs(momentCommitted, "SettlementRunFinish"),
		"BeforeTheCommitOfASlicesEnd":          slices(momentAfter, "SettlementRunSlice"),
		"WhileTheCommitOfASlicesEndIsOnItsWay": slices(momentOnItsWay, "SettlementRunSlice"),
		"AfterASlicesEnd":                      slices(momentCommitted, "SettlementRunSlice"),
		"AfterAPassIsGoneOnWith":               slices(momentCommitted, "SettlementRunContinuePass"),
	}
}

func (w *world) orderOf(at step) order {
	return order{Act: actDie, IsSliced: at.isSliced, Nth: 1 + w.random.IntN(at.most), Place: at.place}
}

// TestSettlement_KilledAtAStep kills a process at one step and lets another go on.
func TestSettlement_KilledAtAStep(t *testing.T) {
	t.Parallel()

	for name, at := range steps() {
		t.Run(name+"CreditsEverybodyOnce", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			for turn := range uint64(times(1)) {
				w := setup(ctx, t, uint64(len(name))+100*turn, 24)
				w.killOnce(ctx, t, w.orderOf(at))
				w.settle(ctx, t)
				w.requireSettled(ctx, t)
			}
		})
	}
}

// killOnce lets a process die as ordered. The books are true at this moment too.
func (w *world) killOnce(ctx context.Context, t *testing.T, o order) {
	t.Helper()
	p := w.start(t, o)
	w.await(ctx, t, "a process is to die", p.hasExited)
	p.requireKilled(t)
	w.requireTrueBooks(ctx, t)
	w.bury(ctx, t)
}

// TestSettlement_KilledAgainAndAgain kills many processes one after the other, each at
// another step, or at any time.
func TestSettlement_KilledAgainAndAgain(t *testing.T) {
	t.Parallel()

	for seed := range uint64(times(2)) {
		t.Run(fmt.Sprintf("CreditsEverybodyOnce/%d", seed), func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, seed, 60)
			names := slices.Sorted(maps.Keys(steps()))
			numKilled := 0
			for number := range 5 {
				at := steps()[names[w.random.IntN(len(names))]]
				o := w.orderOf(at)
				o.ChunkSize, o.Nth = 1+w.random.IntN(4), 1+w.random.IntN(min(2, at.most))
				// The first surely dies before all is settled.
				if number > 0 && w.random.IntN(3) == 0 {
					o.Act, o.Place = "", place{}
				}
				if w.killSometime(ctx, t, o) {
					numKilled++
				}
			}
			t.Logf("%d of 5 processes were killed before all was settled", numKilled)
			require.NotZero(t, numKilled)
			w.settle(ctx, t)
			w.requireSettled(ctx, t)
		})
	}
}

// killSometime kills at a step, or whenever it happens to be. It returns false if all
// was settled before.
func (w *world) killSometime(ctx context.Context, t *testing.T, o order) bool {
	t.Helper()
	p := w.start(t, o)
	if o.Act == "" {
		p.waitFor(t, reportReady)
		killer := time.AfterFunc(time.Duration(w.random.IntN(900))*time.Millisecond, func() { _ = p.command.Process.Kill() })
		defer killer.Stop()
	}
	w.await(ctx, t, "a process is to die", func() bool { return p.hasExited() || w.isSettled(ctx, t) })
	_ = p.stdin.Close()
	p.waitUntilExited(t)
	if p.err == nil {
		return false
	}
	p.requireKilled(t)
	w.requireTrueBooks(ctx, t)
	w.bury(ctx, t)
	return true
}

// TestSettlement_CommitWithoutAnswer cuts connections whose commit is done and not
// answered. Nobody dies: the process itself must find out what became of it.
func TestSettlement_CommitWithoutAnswer(t *testing.T) {
	t.Parallel()

	for name, at := range map[string]step{
		"OfTheTick":          {most: 1, place: place{momentOnItsWay, "SettlementRunInsert"}},
		"ThatTakesTheRun":    {most: 3, place: place{momentOnItsWay, "SettlementRunTake"}},
		"OfTheBeginning":     {most: 3, place: place{momentOnItsWay, "SettlementRunCalculating"}},
		"OfTheCalculation":   {most: 3, place: place{momentOnItsWay, "SettlementRunApprove"}},
		"ThatBeginsThePass":  {most: 3, place: place{momentOnItsWay, "SettlementRunBeginPass"}},
		"OfAChunk":           {most: 9, place: place{momentOnItsWay, "SettlementItemCredit"}},
		"OfTheFinaliser":     {most: 3, place: place{momentOnItsWay, "SettlementRunFinish"}},
		"OfTheEndOfASlice":   {isSliced: true, most: 6, place: place{momentOnItsWay, "SettlementRunSlice"}},
		"ThatGoesOnWithPass": {isSliced: true, most: 6, place: place{momentOnItsWay, "SettlementRunContinuePass"}},
	} {
		t.Run(name+"CreditsEverybodyOnce", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, uint64(len(name)), 24)
			w.cutOnce(ctx, t, w.orderOf(at))
			w.requireSettled(ctx, t)
		})
	}
}

// cutOnce lets one process settle all, without an answer to one of its commits.
func (w *world) cutOnce(ctx context.Context, t *testing.T, o order) {
	t.Helper()
	o.Act = actCut
	p := w.start(t, o)
	w.await(ctx, t, "all is to be settled", func() bool { return w.isSettled(ctx, t) || p.hasExited() })
	require.True(t, p.hasWithheld(), "no commit was without an answer")
	p.stop(t)
}
