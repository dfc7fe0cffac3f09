package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/cli"
	"truegreen/internal/publish/natspublish"
	"truegreen/internal/reconcile"
)

// OutboxReconcile compares the events with what the broker holds.
func (actions *actions) OutboxReconcile(ctx context.Context, request cli.OutboxReconcileRequest) (cli.OutboxReconciled, error) {
	return withDatabase(ctx, actions, func(pool *pgxpool.Pool) (cli.OutboxReconciled, error) {
		publisher, err := connectBroker(actions.logger, actions.config, actions.config.BrokerURL.Reveal())
		if err != nil {
			return cli.OutboxReconciled{}, err
		}
		defer publisher.Close()
		options := reconcile.Options{Adopt: request.Adopt, As: request.As, Grace: request.Grace}
		if request.Stream != "" {
			options.Streams = []string{request.Stream}
		}
		report, err := reconcile.Run(ctx, pool, brokerSource{publisher}, options)
		return outboxReconciled(&report), err
	})
}

// brokerSource reads the broker for a comparison.
type brokerSource struct{ publisher *natspublish.Publisher }

// Read implements reconcile.Source.
func (source brokerSource) Read(ctx context.Context, stream string, each func(reconcile.Message) error) (reconcile.Extent, error) {
	extent := reconcile.Extent{Name: natspublish.StreamName(stream)}
	first, last, err := source.publisher.ReadStream(ctx, stream, func(message natspublish.StoredMessage) error {
		if !strings.HasPrefix(message.Subject, subjectPrefix(stream)) {
			extent.NumForeign++
			return nil
		}
		return each(reconcile.Message{
			EventID:  message.EventID,
			Key:      message.Key,
			KeySeq:   message.KeySeq,
			Problem:  problem(stream, &message),
			Sequence: message.Sequence,
			StoredAt: message.StoredAt,
			Type:     message.Type,
		})
	})
	extent.Last = last
	// What is gone is what the comparison looks for.
	var gone *natspublish.GapError
	if err != nil && !errors.As(err, &gone) {
		return extent, err
	}
	// Afterwards: what was removed by the stream's own retention may have gone while
	// it was read, also where the reader had not come to yet.
	state, err := source.publisher.StreamState(ctx, stream)
	if err != nil {
		return extent, err
	}
	extent.First = min(max(first, state.First), last+1)
	extent.Retention = retention(state)
	return extent, nil
}

// retention is for how long after the mark of a row its message is there. A repeat
// that the broker knows is acknowledged with the place of the first, which is older
// by as much as the broker remembers.
func retention(state natspublish.StreamState) reconcile.Retention {
	kept := reconcile.Retention{AnyAge: state.RemovesAnyAge}
	if state.MaxAge > 0 {
		kept.MaxAge = max(0, state.MaxAge-state.Duplicates)
		kept.AnyAge = kept.AnyAge || kept.MaxAge == 0
	}
	return kept
}

// subjectPrefix is how subjects of a stream's events begin, as consumers are promised.
func subjectPrefix(stream string) string { return "truegreen." + stream + "." }

// problem is what is not as consumers are promised: of the headers, and of where the
// message is; "" if nothing.
func problem(stream string, message *natspublish.StoredMessage) string {
	var problems []string
	if message.Problem != "" {
		problems = append(problems, message.Problem)
	}
	if message.Type != "" && message.Subject != subjectPrefix(stream)+message.Type {
		problems = append(problems, fmt.Sprintf("it is on subject %q, where type %q does not belong", message.Subject, message.Type))
	}
	if message.Source != "" && message.Source != "/truegreen/"+stream {
		problems = append(problems, fmt.Sprintf("its ce-source is %q, not that of stream %s", message.Source, stream))
	}
	if subject := message.Header["ce-subject"]; message.Key != "" && (len(subject) != 1 || subject[0] != message.Key) {
		problems = append(problems, fmt.Sprintf("its ce-subject is %q, and not its key", strings.Join(subject, ", ")))
	}
	return strings.Join(problems, "; ")
}

func outboxReconciled(report *reconcile.Report) cli.OutboxReconciled {
	shown := cli.OutboxReconciled{NumOpen: report.NumOpen()}
	for i := range report.Findings {
		finding := &report.Findings[i]
		shown.Findings = append(shown.Findings, cli.OutboxFinding{
			Detail:   finding.Detail,
			EventID:  finding.EventID,
			Key:      finding.Key,
			Kind:     string(finding.Kind),
			Mended:   finding.Mended,
			Sequence: finding.Sequence,
			Stream:   finding.Stream,
		})
	}
	for i := range report.Streams {
		stream := &report.Streams[i]
		comparison := cli.OutboxComparison{
			FirstSequence:  stream.Extent.First,
			LastSequence:   stream.Extent.Last,
			Name:           stream.Extent.Name,
			NumAdopted:     stream.NumAdopted,
			NumDiscarded:   stream.NumRows.Discarded,
			NumExpired:     stream.NumExpired,
			NumForeign:     stream.Extent.NumForeign,
			NumForgotten:   stream.NumForgot,
			NumInFlight:    stream.NumInFlight,
			NumLifted:      stream.NumLifted,
			NumMessages:    stream.NumMessages,
			NumParked:      stream.NumRows.Parked,
			NumPublished:   stream.NumRows.Published,
			NumRecent:      stream.NumRecent,
			NumRepeats:     stream.NumRepeats,
			NumUndelivered: stream.NumRows.Undelivered,
			Stream:         stream.Stream,
		}
		for _, kind := range slices.Sorted(maps.Keys(stream.Counts)) {
			counted := stream.Counts[kind]
			comparison.Counts = append(comparison.Counts, cli.OutboxFindingCount{Kind: string(kind), Mended: counted.Mended, Total: counted.Total})
		}
		shown.Streams = append(shown.Streams, comparison)
	}
	return shown
}
