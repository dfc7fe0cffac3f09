package crash_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gapType is the type of the marker that takes the place of an event that is not
// sent.
const gapType = "truegreen.gap.v1"

// kind is what the checker finds wrong.
type kind string

const (
	kindDifferent kind = "different" // a message does not say what its row says
	kindGhost     kind = "ghost"     // a message that no committed transaction appended
	kindJob       kind = "job"       // a completed job claimed what was not delivered
	kindLost      kind = "lost"      // an event that the broker does not have
	kindOrder     kind = "order"     // first occurrences of a key do not count up by one
	kindRepeat    kind = "repeat"    // stored more often than it was sent
	kindUnmarked  kind = "unmarked"  // the broker has it, and its row does not say so
	kindUnproven  kind = "unproven"  // its broker_ref is not where it is
)

// finding is one thing that must not be.
type finding struct {
	Detail string
	Key    string
	Kind   kind
	Stream string
}

// checker looks at evidence. It knows what was promised, and none of the code that
// is to keep the promise.
type checker struct {
	evidence
	findings []finding
	rowOf    map[string]*row
	stored   map[string][]message // by event
}

// judge returns all that is wrong with a world at rest, in which nothing is due.
func judge(found evidence) []finding {
	c := &checker{evidence: found, rowOf: make(map[string]*row), stored: make(map[string][]message)}
	for i := range c.rows {
		c.rowOf[c.rows[i].EventID] = &c.rows[i]
	}
	for stream, messages := range c.messages {
		for _, message := range messages {
			c.stored[message.eventID] = append(c.stored[message.eventID], message)
			c.judgeMessage(stream, message)
		}
		c.judgeOrder(stream, messages)
	}
	c.judgeTransactions()
	for i := range c.rows {
		c.judgeRow(&c.rows[i])
	}
	c.judgeJobs()
	return c.findings
}

func (c *checker) find(kind kind, stream, key, format string, args ...any) {
	c.findings = append(c.findings, finding{Detail: fmt.Sprintf(format, args...), Key: key, Kind: kind, Stream: stream})
}

// judgeMessage compares a message with the row of its event.
func (c *checker) judgeMessage(stream string, message message) {
	row := c.rowOf[message.eventID]
	switch {
	case row == nil:
		c.find(kindGhost, stream, message.key, "%s/%d: event %s was never appended", stream, message.sequence, message.eventID)
	case message.problem != "":
		c.find(kindDifferent, stream, message.key, "%s/%d: %s", stream, message.sequence, message.problem)
	case row.Stream != stream, row.Key != message.key, row.KeySeq != message.keySeq, row.Type != message.typ, row.Payload != message.payload:
		c.find(kindDifferent, stream, message.key, "%s/%d: it says %+v, and its row %+v", stream, message.sequence, message, *row)
	}
}

// judgeOrder looks at the first occurrences of each key, which count from 1. A
// marker and the event that it stands for have one number: the first of them
// counts.
func (c *checker) judgeOrder(stream string, messages []message) {
	type place struct {
		key    string
		keySeq int64
	}
	last := make(map[string]int64)
	seen := make(map[string]bool)
	holder := make(map[place]string) // the type of the first at its place
	for _, message := range messages {
		if seen[message.eventID] {
			continue
		}
		seen[message.eventID] = true
		here := place{key: message.key, keySeq: message.keySeq}
		first, isTaken := holder[here]
		if isTaken && (first == gapType) != (message.typ == gapType) {
			continue
		}
		holder[here] = message.typ
		if message.keySeq != last[message.key]+1 {
			c.find(kindOrder, stream, message.key, "%s/%d: number %d of key %s comes behind number %d", stream, message.sequence, message.keySeq, message.key, last[message.key])
		}
		last[message.key] = message.keySeq
	}
}

// judgeTransactions compares what the application was told with what is there.
func (c *checker) judgeTransactions() {
	for id, event := range c.committed {
		if row := c.rowOf[id]; row == nil {
			c.find(kindLost, event.stream, event.key, "event %s of key %s was committed to %s, and has no row", id, event.key, event.stream)
		}
	}
	for id, event := range c.rolledBack {
		if c.rowOf[id] != nil || len(c.stored[id]) > 0 {
			c.find(kindGhost, event.stream, event.key, "event %s of key %s was rolled back, and is in %s", id, event.key, event.stream)
		}
	}
	for i := range c.rows {
		if _, isKnown := c.committed[c.rows[i].EventID]; !isKnown && c.rows[i].Type != gapType {
			c.find(kindGhost, c.rows[i].Stream, c.rows[i].Key, "event %s of %s has a row, and nobody committed it", c.rows[i].EventID, c.rows[i].Stream)
		}
	}
}

// judgeRow compares what a row says of its delivery with what the broker has.
func (c *checker) judgeRow(row *row) {
	stored := c.stored[row.EventID]
	name := fmt.Sprintf("event %d (%s), number %d of key %s of %s", row.ID, row.EventID, row.KeySeq, row.Key, row.Stream)
	switch {
	case row.PublishedAt != nil && len(stored) == 0:
		c.find(kindLost, row.Stream, row.Key, "%s is marked as published, and the broker does not have it", name)
	case row.PublishedAt != nil:
		isThere := slices.ContainsFunc(stored, func(message message) bool {
			return row.BrokerRef != nil && *row.BrokerRef == fmt.Sprintf("TRUEGREEN_%s/%d", strings.ToUpper(row.Stream), message.sequence)
		})
		if !isThere {
			c.find(kindUnproven, row.Stream, row.Key, "%s is not at its broker_ref", name)
		}
	case len(stored) > 0:
		c.find(kindUnmarked, row.Stream, row.Key, "%s is stored, and marked %s", name, row.State)
	case row.State != "parked" && row.State != "blocked" && row.State != "discarded":
		c.find(kindLost, row.Stream, row.Key, "%s was never published, and is %s", name, row.State)
	}
	if numRepeats := len(stored) - 1; numRepeats > max(0, row.Attempts-1) {
		c.find(kindRepeat, row.Stream, row.Key, "%s is stored %d times, after %d attempts", name, len(stored), row.Attempts)
	}
}

// judgeJobs looks at what completed jobs say that they claimed. Events that were to
// wait behind a parked one were not theirs.
func (c *checker) judgeJobs() {
	type shard struct {
		number int
		stream string
	}
	open := make(map[shard][]*row)
	for i := range c.rows {
		row := &c.rows[i]
		if row.PublishedAt == nil && row.ParkedAt == nil && row.State != "blocked" && row.State != "discarded" {
			here := shard{number: row.Shard, stream: row.Stream}
			open[here] = append(open[here], row)
		}
	}
	for _, job := range c.jobs {
		for _, row := range open[shard{number: job.Shard, stream: job.Stream}] {
			if row.ID >= job.FirstID && row.ID <= job.LastID {
				c.find(kindJob, row.Stream, row.Key, "job %d is completed and claimed events %d to %d, of which %d is %s", job.ID, job.FirstID, job.LastID, row.ID, row.State)
			}
		}
	}
}

// shortPass is how long a pass may take that has certainly not run out of time, and
// so has looked at everything that was due when it began.
const shortPass = 2 * time.Second

// judgeLeft looks at completed jobs, also in a world in which something is due. A job
// must have been told of everything that it sent, and all of it must have been marked
// by its end: what somebody else sends afterwards does not make it good. Nor may it
// have passed by an event that it could have sent.
func judgeLeft(found evidence) []finding {
	c := &checker{evidence: found}
	type shard struct {
		number int
		stream string
	}
	type key struct{ name, stream string }
	rows := make(map[shard][]*row)
	isHeld := make(map[key]bool) // by an event that failed, or was decided on
	for i := range c.rows {
		row := &c.rows[i]
		here := shard{number: row.Shard, stream: row.Stream}
		rows[here] = append(rows[here], row)
		if row.NotBefore != nil || row.ParkedAt != nil || row.State == "discarded" {
			isHeld[key{name: row.Key, stream: row.Stream}] = true
		}
	}
	for _, job := range c.jobs {
		numPublished := 0
		for _, row := range rows[shard{number: job.Shard, stream: job.Stream}] {
			if row.ID < job.FirstID || row.ID > job.LastID {
				continue
			}
			committedAt := c.committed[row.EventID].committedAt
			switch {
			case row.PublishedAt != nil && !row.PublishedAt.After(job.FinalizedAt):
				numPublished++
			case row.PublishedAt == nil && !committedAt.IsZero() && committedAt.Before(job.AttemptedAt) &&
				!isHeld[key{name: row.Key, stream: row.Stream}] && job.FinalizedAt.Sub(job.AttemptedAt) < shortPass:
				c.find(kindJob, row.Stream, row.Key, "job %d is completed and claimed events %d to %d, of which it passed by %d", job.ID, job.FirstID, job.LastID, row.ID)
			}
		}
		if numTold := max(job.NumPublished, job.NumSent); numPublished < numTold {
			c.find(kindJob, job.Stream, "", "job %d is completed and tells of %d events of %d to %d, of which %d were published by its end", job.ID, numTold, job.FirstID, job.LastID, numPublished)
		}
	}
	return c.findings
}

// requireHonestJobs looks at the jobs that were completed until now. It reads them
// before the rows: what a job marked is there once the job is seen.
func (w *world) requireHonestJobs(ctx context.Context, t *testing.T) {
	t.Helper()
	found := evidence{committed: w.application.committed, jobs: w.jobs(ctx, t)}
	found.rows = w.rows(ctx, t)
	findings := judgeLeft(found)
	for _, finding := range findings {
		t.Logf("%s: %s\n%s", finding.Kind, finding.Detail, found.story(finding.Stream, finding.Key))
	}
	require.Empty(t, findings)
}
