package natspublish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readBatch is how many messages are asked for at once; half of them are on
	// their way while the other half is worked on.
	readBatch = 8192

	// readPatience is how long a message may take before the reading is taken up
	// anew.
	readPatience = 5 * time.Second

	// readLook is how often a reader that gets nothing looks whether the connection
	// is still the one that it asked on.
	readLook = 100 * time.Millisecond

	// readAttempts is how often that is done without a single message in between.
	readAttempts = 4

	// readLag is how long a reader that has come to its end too early is given: it
	// may read from a server of the cluster that is a little behind.
	readLag = 500 * time.Millisecond

	// readerLife is how long the broker keeps a reader that asks for nothing: one
	// that could not be removed goes by itself.
	readerLife = time.Minute
)

// ReadStream calls each for every message that the JetStream stream of the outbox
// stream has, from its first sequence to the one that was its last when the
// reading began, in order and once each. It returns those two sequences; last is
// first-1 if there was no message. It reads headers and no bodies, and leaves
// nothing behind at the broker.
//
// It goes on where it was when the connection breaks in between. What is missing
// between first and last is a [*GapError], after everything else was read. An
// error of each ends the reading and is returned.
func (publisher *Publisher) ReadStream(ctx context.Context, stream string, each func(StoredMessage) error) (first, last uint64, err error) {
	name := StreamName(stream)
	found, err := publisher.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, 0, fmt.Errorf("read stream %s: it does not exist; run 'truegreen broker provision'", name)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read stream %s: %w", name, publisher.reachError(err))
	}
	state := found.CachedInfo().State
	r := &streamReader{
		each:      each,
		gaps:      GapError{Stream: name},
		last:      state.LastSeq,
		next:      max(state.FirstSeq, 1),
		publisher: publisher,
		stream:    name,
	}
	first = r.next
	if state.Msgs == 0 {
		// All that ever was in it is gone: nothing is between first and last.
		return state.LastSeq + 1, state.LastSeq, nil
	}
	err = r.read(ctx)
	r.removeReaders(ctx)
	if err != nil {
		return first, r.last, fmt.Errorf("read stream %s from sequence %d: %w", name, r.next, err)
	}
	if r.gaps.NumMissing > 0 {
		return first, r.last, &r.gaps
	}
	return first, r.last, nil
}

// streamReader reads one stream.
type streamReader struct {
	each      func(StoredMessage) error
	gaps      GapError
	last      uint64 // where to end
	next      uint64 // the first sequence that was not read
	publisher *Publisher
	readers   []string // made at the broker
	stream    string
}

// errInterrupted says that nothing came any more, though there is something.
var errInterrupted = errors.New("the broker stopped sending")

// errBehind says that the reader knows of no more, and the stream has more.
var errBehind = errors.New("the reader came to its end before the end of the stream")

// eachError is an error of the caller's.
type eachError struct{ error }

func (r *streamReader) read(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		before := r.next
		err := r.readOnce(ctx)
		if err == nil {
			err = r.confirmEnd(ctx)
		}
		var theirs eachError
		switch {
		case err == nil:
			r.miss(r.last + 1)
			return nil
		case errors.As(err, &theirs):
			return theirs.error
		case ctx.Err() != nil:
			return err
		case r.next > before:
			attempt = 0
		case attempt == readAttempts:
			return r.publisher.reachError(err)
		}
		if errors.Is(err, errBehind) {
			if err := wait(ctx, readLag); err != nil {
				return err
			}
		}
		if err := r.waitConnected(ctx); err != nil {
			return err
		}
	}
}

// confirmEnd asks the stream itself, that is its leader, whether anything is left up
// to the end. A reader of a stream with replicas reads from one of these, and says
// what is pending there.
func (r *streamReader) confirmEnd(ctx context.Context) error {
	if r.next > r.last {
		return nil
	}
	// Not by the client's own call: where direct gets are allowed, any replica answers.
	request, err := json.Marshal(struct {
		NextFor  string `json:"next_by_subj"`
		Sequence uint64 `json:"seq"`
	}{">", r.next})
	if err != nil {
		return fmt.Errorf("ask for the next message: %w", err)
	}
	askCtx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	answer, err := r.publisher.conn.RequestWithContext(askCtx, "$JS.API.STREAM.MSG.GET."+r.stream, request)
	if err != nil {
		return fmt.Errorf("ask for the next message: %w", err)
	}
	var next struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Sequence uint64 `json:"seq"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(answer.Data, &next); {
	case err != nil:
		return fmt.Errorf("read what the next message is: %w", err)
	case next.Error != nil && next.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil
	case next.Error != nil:
		return fmt.Errorf("ask for the next message: %w", next.Error)
	case next.Message == nil:
		return errors.New("ask for the next message: the broker's answer has none, and no error")
	case next.Message.Sequence > r.last:
		return nil
	}
	return fmt.Errorf("%w, which has a message at sequence %d", errBehind, next.Message.Sequence)
}

// wait waits, unless ctx ends before.
func wait(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // by the caller
	}
}

// waitConnected waits a little for a connection that broke.
func (r *streamReader) waitConnected(ctx context.Context) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	patience := time.NewTimer(readPatience)
	defer patience.Stop()
	for !r.publisher.conn.IsConnected() {
		select {
		case <-ticker.C:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // by the caller
		}
	}
	return nil
}

// readOnce reads on with a reader of its own at the broker, until the end or
// until something breaks.
func (r *streamReader) readOnce(ctx context.Context) error {
	consumer, err := r.publisher.js.CreateConsumer(ctx, r.stream, jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		Description:       "truegreen reads the stream",
		HeadersOnly:       true,
		InactiveThreshold: readerLife,
		MemoryStorage:     true,
		Name:              "truegreen-read-" + uuid.NewString(),
		OptStartSeq:       r.next,
		Replicas:          1,
	})
	if err != nil {
		return fmt.Errorf("create reader: %w", err)
	}
	name := consumer.CachedInfo().Name
	r.readers = append(r.readers, name)
	if consumer.CachedInfo().NumPending == 0 {
		return nil // what was left may be gone
	}
	conn := r.publisher.conn
	// Room for all that is asked for, and for what the broker says beside.
	messages := make(chan *nats.Msg, 2*readBatch)
	inbox := conn.NewInbox()
	sub, err := conn.ChanSubscribe(inbox, messages)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	return r.pull(ctx, messages, func(request []byte) error {
		return conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+r.stream+"."+name, inbox, request)
	})
}

// pull asks for messages and takes them, so that one half of what was asked for
// is always on its way.
func (r *streamReader) pull(ctx context.Context, messages <-chan *nats.Msg, ask func(request []byte) error) error {
	request, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
	}{readBatch / 2, 2 * readPatience})
	if err != nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	look := time.NewTicker(readLook)
	defer look.Stop()
	connection := r.publisher.conn.Stats().Reconnects
	asked, delivered := 0, uint64(0)
	idle, deliveredBefore := time.Duration(0), uint64(0)
	for {
		for asked <= readBatch/2 {
			if err := ask(request); err != nil {
				return fmt.Errorf("ask for messages: %w", err)
			}
			asked += readBatch / 2
		}
		var msg *nats.Msg
		select {
		case msg = <-messages:
		case <-look.C:
			if delivered != deliveredBefore {
				idle, deliveredBefore = 0, delivered
			}
			idle += readLook
			if idle > readPatience || r.publisher.conn.Stats().Reconnects != connection {
				return errInterrupted
			}
			continue
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // by the caller
		}
		if msg == nil {
			return nats.ErrConnectionClosed
		}
		if msg.Reply == "" {
			return fmt.Errorf("%w: %s %s", errInterrupted, msg.Header.Get("Status"), msg.Header.Get("Description"))
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read message: %w", err)
		}
		asked--
		delivered++
		if meta.Sequence.Consumer != delivered {
			return fmt.Errorf("%w: messages were lost on the way", errInterrupted)
		}
		isEnd, err := r.take(msg, meta)
		if isEnd || err != nil {
			return err
		}
	}
}

// take hands one message to the caller; isEnd says that the reader knows of no more.
func (r *streamReader) take(msg *nats.Msg, meta *nats.MsgMetadata) (isEnd bool, err error) {
	sequence := meta.Sequence.Stream
	if sequence > r.last {
		return true, nil
	}
	r.miss(sequence)
	if err := r.each(storedMessage(msg, sequence, meta.Timestamp)); err != nil {
		return false, eachError{err}
	}
	r.next = sequence + 1
	return sequence == r.last || meta.NumPending == 0, nil
}

// miss notes that everything from next to below sequence is gone.
func (r *streamReader) miss(sequence uint64) {
	if sequence <= r.next {
		return
	}
	r.gaps.NumMissing += sequence - r.next
	if len(r.gaps.Gaps) < maxGaps {
		r.gaps.Gaps = append(r.gaps.Gaps, Gap{First: r.next, Last: sequence - 1})
	}
	r.next = sequence
}

// removeReaders leaves nothing behind, as far as it can: a reader that cannot be
// removed goes by itself after readerLife, and what was read is read all the same.
func (r *streamReader) removeReaders(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*readPatience)
	defer cancel()
	for _, name := range r.readers {
		if err := r.removeReader(ctx, name); err != nil {
			r.publisher.logger.WarnContext(ctx, "reader left at the broker, it goes by itself",
				slog.Duration("after", readerLife), slog.Any("error", err), slog.String("reader", name), slog.String("stream", r.stream))
		}
	}
}

// removeReader asks more than once: a connection that has just broken looks whole, and
// swallows what is asked.
func (r *streamReader) removeReader(ctx context.Context, name string) (err error) {
	for range readAttempts {
		if err := r.waitConnected(ctx); err != nil {
			return err
		}
		askCtx, cancel := context.WithTimeout(ctx, readPatience/5)
		err = r.publisher.js.DeleteConsumer(askCtx, r.stream, name)
		cancel()
		if err == nil || errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil
		}
	}
	return fmt.Errorf("remove reader: %w", err)
}
