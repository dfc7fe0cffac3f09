package natspublish

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// inbox takes the broker's answers and hands each to the call of Publish that
// waits for it. One subscription serves all calls: what an answer belongs to is
// written in its subject, "<prefix>.<call>.<what>".
type inbox struct {
	calls  map[uint64]*mailbox
	lastID uint64
	mu     sync.Mutex
	prefix string
}

func newInbox() *inbox {
	return &inbox{calls: make(map[uint64]*mailbox), prefix: nats.NewInbox() + "."}
}

// subscribe asks for the answers. It may be called before conn is connected.
func (i *inbox) subscribe(conn *nats.Conn) error {
	sub, err := conn.Subscribe(i.prefix+">", i.deliver)
	if err != nil {
		return fmt.Errorf("subscribe for answers: %w", err)
	}
	// Answers are small, and there are never more than there are messages in flight.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return fmt.Errorf("subscribe for answers: %w", err)
	}
	return nil
}

// open makes the mailbox of one call; it must be closed.
func (i *inbox) open() *mailbox {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lastID++
	box := &mailbox{
		arrived: make(chan struct{}, 1),
		id:      i.lastID,
		inbox:   i,
		prefix:  i.prefix + strconv.FormatUint(i.lastID, 36) + ".",
	}
	i.calls[box.id] = box
	return box
}

// deliver runs in the goroutine of the subscription.
func (i *inbox) deliver(msg *nats.Msg) {
	call, what, found := strings.Cut(msg.Subject[len(i.prefix):], ".")
	id, err := strconv.ParseUint(call, 36, 64)
	if !found || err != nil {
		return
	}
	i.mu.Lock()
	box := i.calls[id]
	i.mu.Unlock()
	// A call that is over does not care any more.
	if box != nil {
		box.put(answer{msg: msg, what: what})
	}
}

// lose tells all calls that the connection broke: what was asked before is not
// answered any more.
func (i *inbox) lose() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, box := range i.calls {
		box.lose()
	}
}

// answer is what the broker said to one message.
type answer struct {
	msg  *nats.Msg
	what string // the last part of the reply subject: what it answers
}

// mailbox holds the answers to one call until it takes them.
type mailbox struct {
	answers []answer
	arrived chan struct{} // filled when there is something to take
	id      uint64
	inbox   *inbox
	lost    bool
	mu      sync.Mutex
	prefix  string // of the reply subjects of the call
}

func (m *mailbox) close() {
	m.inbox.mu.Lock()
	defer m.inbox.mu.Unlock()
	delete(m.inbox.calls, m.id)
}

func (m *mailbox) put(one answer) {
	m.mu.Lock()
	m.answers = append(m.answers, one)
	m.mu.Unlock()
	m.ring()
}

func (m *mailbox) lose() {
	m.mu.Lock()
	m.lost = true
	m.mu.Unlock()
	m.ring()
}

func (m *mailbox) ring() {
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// take returns what came since the last time, and whether the connection broke
// after it. The room of spare, which the caller has done with, is used for what
// comes next.
func (m *mailbox) take(spare []answer) (answers []answer, lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answers, lost = m.answers, m.lost
	m.answers, m.lost = spare[:0], false
	return answers, lost
}
