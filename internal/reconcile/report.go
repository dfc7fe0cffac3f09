package reconcile

// Kind is what is wrong, in a word.
type Kind string

// The kinds, in the order in which they are told. There are no others.
const (
	// KindLost: a row says published, and the broker does not have the event.
	KindLost Kind = "lost"
	// KindUnmarked: the broker has the event, and its row is neither published nor
	// discarded. Can be adopted if the message says what the row says.
	KindUnmarked Kind = "unmarked"
	// KindGhost: the broker has an event that no row knows.
	KindGhost Kind = "ghost"
	// KindKeyBehind: the broker has higher numbers of a key than the database gave
	// out, so that the next appends would use them again. Can be adopted for
	// streams that count by themselves.
	KindKeyBehind Kind = "key_behind"
	// KindOutOfOrder: an event is first stored behind a later one of its key.
	KindOutOfOrder Kind = "out_of_order"
	// KindOvertaken: an event is not delivered, and a later one of its key is.
	KindOvertaken Kind = "overtaken"
	// KindDifferent: key, number or type of a message are not those of its row.
	KindDifferent Kind = "different"
	// KindWrongRef: a row's broker_ref is not where its event is.
	KindWrongRef Kind = "wrong_ref"
	// KindRepeat: an event is stored more often than its row counts attempts.
	KindRepeat Kind = "repeat"
	// KindDiscardedButStored: a row is discarded, and the broker has the event.
	KindDiscardedButStored Kind = "discarded_but_stored"
	// KindUnreadable: a message that is not as events are published: by its headers,
	// or by its subject.
	KindUnreadable Kind = "unreadable"
	// KindJobContradiction: a publish job completed, and an event that it was to
	// deliver was not delivered by then.
	KindJobContradiction Kind = "job_contradiction"
)

// Finding is one disagreement.
type Finding struct {
	Detail   string // what is wrong and what to do, in a sentence
	EventID  string // "" if it is of no single event
	Key      string // "" if it is of no key
	Kind     Kind
	Mended   bool   // adopted: nothing is left to do
	Sequence uint64 // the place at the broker; 0 if it has none
	Stream   string
}

// Count is how many findings of one kind there are.
type Count struct {
	Mended int64 // of Total, those that were adopted
	Total  int64
}

// StreamResult is what one stream has on either side. What is not wrong but cannot
// be compared is counted beside the findings.
type StreamResult struct {
	Counts      map[Kind]Count // kinds without findings are left out
	Extent      Extent
	NumAdopted  int64 // rows that were marked as published
	NumExpired  int64 // published rows whose messages the broker's retention may have removed
	NumForgot   int64 // messages whose rows the database no longer keeps
	NumInFlight int64 // unmarked rows younger than the grace
	NumLifted   int64 // keys whose last number was raised
	NumMessages int64 // read from the broker, repeats included
	NumRecent   int64 // published since the reading began, behind its end
	NumRepeats  int64 // messages whose event is stored before them already
	NumRows     RowCounts
	Stream      string
}

// RowCounts is how many rows there are, by what became of them.
type RowCounts struct {
	Discarded   int64
	Parked      int64
	Published   int64
	Undelivered int64 // neither of the others
}

// Report is what a comparison found.
type Report struct {
	Findings []Finding      // by stream, kind in the order of the kinds, and place
	Streams  []StreamResult // in order of name
}

// NumOpen is how many findings are left to be looked at, told or not: 0 when all is
// well, or was adopted.
func (report Report) NumOpen() int64 {
	var numOpen int64
	for _, stream := range report.Streams {
		for _, count := range stream.Counts {
			numOpen += count.Total - count.Mended
		}
	}
	return numOpen
}
