package crash_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/reconcile"
)

// numSmall is how many events each stream of a small world has: three of them of the
// hot key.
const numSmall = 5

// TestJudge damages small worlds, and expects the checker to see it.
func TestJudge(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		damage  func(ctx context.Context, t *testing.T, w *world)
		kinds   []kind
		product reconcile.Kind // what the product's own checker says of it
	}{
		"ACompletedJobThatContradictsARow": {contradictJob, []kind{kindJob, kindLost}, ""},
		"ADeletedMessage":                  {deleteMessage, []kind{kindLost, kindOrder}, reconcile.KindLost},
		"AMessageOfARolledBackEvent":       {publishRolledBack, []kind{kindGhost}, reconcile.KindGhost},
		"AMessageThatSaysSomethingElse":    {publishOther, []kind{kindDifferent}, reconcile.KindDifferent},
		"ARepeatWithoutAnAttempt":          {repeat, []kind{kindRepeat}, reconcile.KindRepeat},
		"ARowMarkedWithoutAMessage":        {markUnsent, []kind{kindLost}, reconcile.KindLost},
		"ARowWithAnothersReference":        {swapReferences, []kind{kindUnproven}, reconcile.KindWrongRef},
		"ARowWithoutItsMark":               {unmark, []kind{kindJob, kindUnmarked}, reconcile.KindUnmarked},
		"SwappedMessagesOfAKey":            {publishSwapped, []kind{kindOrder}, reconcile.KindOutOfOrder},
		"ALostCommit":                      {forgetRow, []kind{kindLost}, ""},
	} {
		t.Run("Finds"+name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, 1, func(config *jetstream.StreamConfig) { config.Duplicates = shortWindow })
			w.application.commit(ctx, t, backlog(numSmall)...)
			w.deliver(ctx, t)
			require.Empty(t, judge(w.gather(ctx, t)))

			tc.damage(ctx, t, w)
			kinds := make(map[kind]bool)
			for _, finding := range judge(w.gather(ctx, t)) {
				kinds[finding.Kind] = true
			}
			want := make(map[kind]bool)
			for _, kind := range tc.kinds {
				want[kind] = true
			}
			require.Equal(t, want, kinds)
			if tc.product == "" {
				return
			}
			var found []reconcile.Kind
			for _, finding := range w.reconcile(ctx, t).Findings {
				found = append(found, finding.Kind)
			}
			require.Contains(t, found, tc.product)
		})
	}
}

// TestJudgeJobs has jobs of a process that did its work look as if it had not, and
// somebody else had done some of it since.
func TestJudgeJobs(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		damage  func(ctx context.Context, t *testing.T, w *world)
		product string // what the product's own checker says of it; "" for nothing
	}{
		"AnEventThatWasSentOnceItHadCompleted": {publishLater, "were published, parked or discarded there by its end"},
		"AnEventOfWhichItWasNotTold":           {sendOneMore, "events and was told that"},
		"AnEventThatItPassedBy":                {passBy, ""},
		"AnEventWithoutItsMark":                {unmark, "were published, parked or discarded there by its end"},
	} {
		t.Run("Finds"+name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, 1, nil)
			w.application.commit(ctx, t, backlog(numSmall)...)
			w.drain(ctx, t)
			w.requireHonestJobs(ctx, t)
			w.requireSound(ctx, t)

			tc.damage(ctx, t, w)
			findings := judgeLeft(evidence{committed: w.application.committed, jobs: w.jobs(ctx, t), rows: w.rows(ctx, t)})
			require.NotEmpty(t, findings)
			for _, finding := range findings {
				require.Equal(t, kindJob, finding.Kind)
			}
			told := ""
			for _, finding := range w.reconcile(ctx, t).Findings {
				if finding.Kind == reconcile.KindJobContradiction {
					told += finding.Detail
				}
			}
			if tc.product == "" {
				require.Empty(t, told)
				return
			}
			require.Contains(t, told, tc.product)
		})
	}
}

// ofItsJob is the completed job that claimed the second event of a stream's hot key.
const ofItsJob = `
	FROM river_job AS job
	JOIN outbox_delivery AS delivery
		ON job.args = jsonb_build_object('shard', delivery.shard)
		AND delivery.id BETWEEN (job.metadata #>> '{output,result,first_id}')::bigint AND (job.metadata #>> '{output,result,last_id}')::bigint
	WHERE job.kind = 'outbox_agent'
		AND job.state = 'completed'
		AND delivery.id = $1`

// publishLater has an event published a minute after its job had ended.
func publishLater(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.allowEverything(ctx, t)
	w.exec(ctx, t, `UPDATE outbox_delivery SET published_at = (SELECT job.finalized_at + interval '1 minute'`+ofItsJob+`) WHERE id = $1`, w.hotRow(ctx, t, "agent", 2).ID)
}

// sendOneMore has a job say that it sent more than it was told of.
func sendOneMore(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.exec(ctx, t, `
		UPDATE river_job
		SET metadata = jsonb_set(metadata, '{output,result,num_sent}', to_jsonb((metadata #>> '{output,result,num_published}')::integer + 1))
		WHERE id = (SELECT job.id`+ofItsJob+`)`, w.hotRow(ctx, t, "agent", 2).ID)
}

// passBy leaves an event between those that its job claimed, and which says nothing
// of it.
func passBy(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.exec(ctx, t, `
		UPDATE river_job
		SET attempted_at = finalized_at, metadata = metadata #- '{output,result,num_sent}' #- '{output,result,num_published}'
		WHERE id = (SELECT job.id`+ofItsJob+`)`, w.hotRow(ctx, t, "agent", 2).ID)
	unmark(ctx, t, w)
}

// deliver does by hand what a process would do: it sends all events, marks them, and
// leaves a completed job for each shard.
func (w *world) deliver(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, row := range w.rows(ctx, t) {
		w.mark(ctx, t, row.ID, w.publish(ctx, t, row))
	}
	w.exec(ctx, t, `DELETE FROM river_job`)
	w.exec(ctx, t, `
		INSERT INTO river_job (args, attempt, attempted_at, finalized_at, kind, max_attempts, metadata, queue, state)
		SELECT
			jsonb_build_object('shard', shard), 1, now(), now(), 'outbox_' || stream, 20,
			jsonb_build_object('output', jsonb_build_object('result', jsonb_build_object(
				'first_id', min(id), 'last_id', max(id), 'num_published', count(*)))),
			'outbox_' || stream, 'completed'
		FROM outbox_delivery
		GROUP BY shard, stream`)
}

func (w *world) exec(ctx context.Context, t *testing.T, query string, args ...any) {
	t.Helper()
	tag, err := w.db.Pool.Exec(ctx, query, args...)
	require.NoError(t, err)
	require.NotEqual(t, "UPDATE 0", tag.String(), query)
}

// allowEverything takes the database's guards away.
func (w *world) allowEverything(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, table := range []string{"outbox_delivery", "outbox_event"} {
		w.exec(ctx, t, `ALTER TABLE `+table+` DISABLE TRIGGER USER`)
	}
}

// publish has somebody else send row, until the broker stores it.
func (w *world) publish(ctx context.Context, t *testing.T, row row) jetstream.PubAck {
	t.Helper()
	msg := nats.NewMsg("truegreen." + row.Stream + "." + row.Type)
	msg.Data = []byte(row.Payload)
	for name, value := range map[string]string{
		"Nats-Msg-Id":     row.EventID,
		"ce-id":           row.EventID,
		"ce-partitionkey": row.Key,
		"ce-keysequence":  fmt.Sprint(row.KeySeq),
		"ce-source":       "/truegreen/" + row.Stream,
		"ce-specversion":  "1.0",
		"ce-subject":      row.Key,
		"ce-time":         time.Now().UTC().Format(time.RFC3339Nano),
		"ce-type":         row.Type,
		"content-type":    "application/json",
	} {
		msg.Header[name] = []string{value}
	}
	acknowledged, err := w.js.PublishMsg(ctx, msg)
	require.NoError(t, err)
	if acknowledged.Duplicate {
		require.Eventually(t, func() bool {
			acknowledged, err = w.js.PublishMsg(ctx, msg)
			return err == nil && !acknowledged.Duplicate
		}, patience, poll)
	}
	return *acknowledged
}

// hotRow returns the row of an event of a stream's hot key.
func (w *world) hotRow(ctx context.Context, t *testing.T, stream string, keySeq int64) row {
	t.Helper()
	for _, row := range w.rows(ctx, t) {
		if row.Stream == stream && row.Key == hotKey && row.KeySeq == keySeq {
			return row
		}
	}
	require.Fail(t, "no such row")
	return row{}
}

// deleteMessage has the broker forget one that is neither the first of its stream
// nor the last of its key.
func deleteMessage(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	stream, err := w.js.Stream(ctx, atBroker("rolling"))
	require.NoError(t, err)
	messages, err := readBroker(ctx, w.js, "rolling")
	require.NoError(t, err)
	for _, message := range messages {
		if message.key == hotKey && message.keySeq == 2 {
			require.NoError(t, stream.DeleteMsg(ctx, message.sequence))
		}
	}
}

func markUnsent(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.application.commit(ctx, t, appended{key: "key-1", stream: "wallet"})
	w.exec(ctx, t, `UPDATE outbox_delivery SET attempts = 1, broker_ref = 'TRUEGREEN_WALLET/1', published_at = now() WHERE published_at IS NULL`)
}

func unmark(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.allowEverything(ctx, t)
	w.exec(ctx, t, `UPDATE outbox_delivery SET broker_ref = NULL, published_at = NULL WHERE id = $1`, w.hotRow(ctx, t, "agent", 2).ID)
}

func swapReferences(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.allowEverything(ctx, t)
	first, second := w.hotRow(ctx, t, "agent", 1), w.hotRow(ctx, t, "agent", 2)
	w.exec(ctx, t, `UPDATE outbox_delivery SET broker_ref = $2 WHERE id = $1`, first.ID, second.BrokerRef)
	w.exec(ctx, t, `UPDATE outbox_delivery SET broker_ref = $2 WHERE id = $1`, second.ID, first.BrokerRef)
}

func repeat(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.publish(ctx, t, w.hotRow(ctx, t, "wallet", 1))
}

func publishRolledBack(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	tx := w.application.begin(ctx, t)
	id := tx.append(ctx, t, appended{key: "key-7", stream: "wallet"})[0]
	tx.end(ctx, t, false)
	w.publish(ctx, t, row{EventID: id, Key: "key-7", KeySeq: 1, Payload: "{}", Stream: "wallet", Type: "wallet.happened.v1"})
}

// publishOther sends the event by hand, with other words.
func publishOther(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.application.commit(ctx, t, appended{key: hotKey, stream: "wallet"})
	row := w.hotRow(ctx, t, "wallet", 4)
	row.Type = "wallet.other.v1"
	w.mark(ctx, t, row.ID, w.publish(ctx, t, row))
}

func publishSwapped(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.application.commit(ctx, t, appended{key: hotKey, stream: "wallet"}, appended{key: hotKey, stream: "wallet"})
	for _, keySeq := range []int64{5, 4} {
		row := w.hotRow(ctx, t, "wallet", keySeq)
		w.mark(ctx, t, row.ID, w.publish(ctx, t, row))
	}
}

func (w *world) mark(ctx context.Context, t *testing.T, id int64, at jetstream.PubAck) {
	t.Helper()
	w.exec(ctx, t, `UPDATE outbox_delivery SET attempts = 1, broker_ref = $2, published_at = now() WHERE id = $1`,
		id, fmt.Sprintf("%s/%d", at.Stream, at.Sequence))
}

// contradictJob has a completed job say that it claimed an event that waits.
func contradictJob(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.application.commit(ctx, t, appended{key: hotKey, stream: "wallet"})
	row := w.hotRow(ctx, t, "wallet", 4)
	w.exec(ctx, t, `
		UPDATE river_job
		SET metadata = jsonb_set(metadata, '{output,result,last_id}', to_jsonb($1::bigint))
		WHERE id = (
			SELECT max(id) FROM river_job
			WHERE kind = 'outbox_wallet'
				AND state = 'completed'
				AND args = jsonb_build_object('shard', $2::integer)
				AND metadata #> '{output,result,first_id}' IS NOT NULL
		)`, row.ID, row.Shard)
}

// forgetRow has a committed event vanish on both sides, the last of its key.
func forgetRow(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	w.application.committed["00000000-0000-0000-0000-000000000000"] = appended{key: hotKey, stream: "wallet"}
}
