package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"
)

// filterFlags are the flags that say which parked events.
type filterFlags struct {
	errorClass   string
	flags        *pflag.FlagSet
	key          string
	parkedAfter  string
	parkedBefore string
	parkReason   string
	stream       string
	typ          string
}

// filterHelp explains the flags to people.
const filterHelp = `The filters narrow together: --stream wallet --park-reason row means both.
--parked-before and --parked-after take an instant, such as 2026-11-09T02:00:00Z,
or a time that long ago, such as 2h.`

// errorClasses and parkReasons are what the flags of fixed words take. Unknown are the
// reasons of events that were parked by versions that noted none.
func errorClasses() []string { return []string{"ambiguous", "infrastructure", "permanent", "row"} }
func parkReasons() []string  { return []string{"crash", "permanent", "row", "unknown"} }

func addFilterFlags(flags *pflag.FlagSet) *filterFlags {
	filter := &filterFlags{flags: flags}
	flags.StringVar(&filter.errorClass, "error-class", "", "class of the last failure: "+strings.Join(errorClasses(), ", "))
	flags.StringVar(&filter.key, "key", "", "their key")
	flags.StringVar(&filter.parkedAfter, "parked-after", "", "parked then or later: an instant or an age")
	flags.StringVar(&filter.parkedBefore, "parked-before", "", "parked before then: an instant or an age")
	flags.StringVar(&filter.parkReason, "park-reason", "", "why they are parked: "+strings.Join(parkReasons(), ", "))
	flags.StringVar(&filter.stream, "stream", "", "their stream, such as wallet")
	flags.StringVar(&filter.typ, "type", "", "their type, such as wallet.credited.v1")
	return filter
}

// names are the flags, in the order of help.
func (*filterFlags) names() []string {
	return []string{"error-class", "key", "park-reason", "parked-after", "parked-before", "stream", "type"}
}

// given returns the flags that were given.
func (filter *filterFlags) given() []string {
	return slices.DeleteFunc(filter.names(), func(name string) bool { return !filter.flags.Changed(name) })
}

// read returns what was asked for. A flag with an empty value is refused: where a
// script lost it, the others alone would match more than was meant. Every error
// counts as wrong usage.
func (filter *filterFlags) read() (OutboxFilter, error) {
	for _, name := range filter.given() {
		if filter.flags.Lookup(name).Value.String() == "" {
			return OutboxFilter{}, WrongUsage(fmt.Errorf("--%s must not be empty; leave it out for all", name))
		}
	}
	if err := checkWord("error-class", filter.errorClass, errorClasses()); err != nil {
		return OutboxFilter{}, err
	}
	if err := checkWord("park-reason", filter.parkReason, parkReasons()); err != nil {
		return OutboxFilter{}, err
	}
	after, err := parseMoment("--parked-after", filter.parkedAfter)
	if err != nil {
		return OutboxFilter{}, err
	}
	before, err := parseMoment("--parked-before", filter.parkedBefore)
	if err != nil {
		return OutboxFilter{}, err
	}
	return OutboxFilter{
		ErrorClass:   filter.errorClass,
		Key:          filter.key,
		ParkedAfter:  after,
		ParkedBefore: before,
		ParkReason:   filter.parkReason,
		Stream:       filter.stream,
		Type:         filter.typ,
	}, nil
}

// selection reads which events a decision is about: those of args or those of the
// flags. Every error counts as wrong usage.
func (filter *filterFlags) selection(args []string) (OutboxSelection, error) {
	given := filter.given()
	switch {
	case len(args) == 0 && len(given) == 0:
		return OutboxSelection{}, WrongUsage(errors.New("say which events: EVENT_IDs, or at least one of --" + strings.Join(filter.names(), ", --")))
	case len(args) > 0 && len(given) > 0:
		return OutboxSelection{}, WrongUsage(fmt.Errorf("EVENT_IDs and filters do not go together: leave out --%s or the EVENT_IDs", strings.Join(given, ", --")))
	case len(args) == 0:
		read, err := filter.read()
		return OutboxSelection{Filter: read}, err
	}
	ids := make([]uuid.UUID, 0, len(args))
	for _, arg := range args {
		id, err := uuid.Parse(arg)
		if err != nil {
			return OutboxSelection{}, WrongUsage(fmt.Errorf("EVENT_ID must look like 0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e70, got %q", arg))
		}
		ids = append(ids, id)
	}
	return OutboxSelection{EventIDs: ids}, nil
}

func checkWord(flag, word string, known []string) error {
	if word == "" || slices.Contains(known, word) {
		return nil
	}
	return WrongUsage(fmt.Errorf("--%s must be one of %s, got %q", flag, strings.Join(known, ", "), word))
}

// parseMoment reads an instant or an age; empty text is none. Every error counts as
// wrong usage.
func parseMoment(flag, text string) (OutboxMoment, error) {
	if text == "" {
		return OutboxMoment{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil && !at.IsZero() {
		return OutboxMoment{At: at}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return OutboxMoment{Ago: ago}, nil
	}
	return OutboxMoment{}, WrongUsage(fmt.Errorf("%s must be an instant such as 2026-11-09T02:00:00Z, or how long ago, such as 90m or 48h, got %q", flag, text))
}
