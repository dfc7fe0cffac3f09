package natspublish

import (
	"sync"
	"time"
)

// refusalMemory is how long a stream that takes no batches is not asked again.
const refusalMemory = time.Minute

// support knows which streams take atomic batches.
type support struct {
	mu      sync.Mutex
	refused map[string]time.Time // when it said that it takes none
	taken   map[string]bool      // it takes them
}

func newSupport() *support {
	return &support{refused: make(map[string]time.Time), taken: make(map[string]bool)}
}

// isWorthATry reports whether stream may take batches, and whether that is known.
func (s *support) isWorthATry(stream string) (worth, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, refused := s.refused[stream]; refused && time.Since(at) < refusalMemory {
		return false, true
	}
	return true, s.taken[stream]
}

// accept notes that stream takes batches.
func (s *support) accept(stream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[stream] = true
	delete(s.refused, stream)
}

// doubt lets the next batch to stream ask first.
func (s *support) doubt(stream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, stream)
}

// refuse notes that stream takes no batches.
func (s *support) refuse(stream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, stream)
	s.refused[stream] = time.Now()
}

// forget starts afresh: there may be another server, or other settings.
func (s *support) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.refused)
	clear(s.taken)
}
