package sample

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"truegreen/internal/fault"
)

// Bounds of a Config.
const (
	MaxDays    = 366
	MaxPlayers = 1_000_000
)

const (
	defaultPlayers  = 3000
	defaultTimeZone = "Asia/Seoul"
	defaultWeeks    = 2

	// generation goes into the tag of all ids. Raise it whenever the same Config
	// makes other lines than before, or they would clash with those of an older
	// build in the same database.
	generation = 1

	// history is how long before the start the oldest members joined. Nothing but
	// their registration and first deposit lies there.
	history = 90 * 24 * time.Hour
)

// Config says what to make up. The same Config makes the same bytes.
type Config struct {
	// Days is how many local days of bets come before the day that End lies in.
	// The first starts at local midnight. From 1 to [MaxDays]; defaults to as
	// many as the last two complete ISO weeks and the days since them need, 14 to
	// 20.
	Days int

	// End is when the activity stops: nothing lies at or after it, except that the
	// last watermarks say so. Whole milliseconds count. Required, from the year
	// 2000 to 2199.
	End time.Time

	// Players is how many there are, from 1 to [MaxPlayers]. Defaults to 3000. From
	// 158 on, each status occurs.
	Players int

	// Seed picks one of all possible platforms. Any number, 0 too.
	Seed uint64

	// TimeZone is the IANA name of the zone whose days, weeks, and evenings the
	// players live by. Defaults to Asia/Seoul.
	TimeZone string
}

// WithDefaults returns the config with its empty fields filled in. Days stays 0
// when End or TimeZone cannot be used.
func (config Config) WithDefaults() Config {
	if config.Players == 0 {
		config.Players = defaultPlayers
	}
	if config.TimeZone == "" {
		config.TimeZone = defaultTimeZone
	}
	if config.Days == 0 && !config.End.IsZero() {
		if zone, err := loadZone(config.TimeZone); err == nil {
			sinceMonday := (int(config.End.In(zone).Weekday()) + 6) % 7
			config.Days = 7*defaultWeeks + sinceMonday
		}
	}
	return config
}

// Validate says all that is wrong with a config that has its defaults. Fails
// with [fault.KindInvalid].
func (config Config) Validate() error {
	var errs []error
	if config.Players < 1 || config.Players > MaxPlayers {
		errs = append(errs, fault.Invalid("players must be from 1 to %d, got %d", MaxPlayers, config.Players))
	}
	_, err := loadZone(config.TimeZone)
	if err != nil {
		errs = append(errs, fault.Invalid("time zone must be an IANA name such as Asia/Seoul, got %q: %v", config.TimeZone, err))
	}
	switch {
	case config.End.IsZero():
		errs = append(errs, fault.Invalid("end is required: the instant at which the activity stops"))
	case config.End.Year() < 2000 || config.End.Year() > 2199:
		errs = append(errs, fault.Invalid("end must lie in the years 2000 to 2199, got %s", config.End.Format(time.RFC3339)))
	case err == nil && (config.Days < 1 || config.Days > MaxDays):
		errs = append(errs, fault.Invalid("days must be from 1 to %d, got %d", MaxDays, config.Days))
	}
	return errors.Join(errs...)
}

// loadZone refuses the machine's own zone, which is another one elsewhere.
func loadZone(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, errors.New("it depends on the machine")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("load time zone: %w", err)
	}
	return zone, nil
}

// span is the time that a sample covers, in the milliseconds since 1970 that
// the simulation counts in.
type span struct {
	end       int64
	midnights []int64 // local, after start and up to end
	start     int64   // local midnight
	zone      *time.Location
}

// span works out what a valid config covers.
func (config Config) span() (span, error) {
	zone, err := loadZone(config.TimeZone)
	if err != nil {
		return span{}, fmt.Errorf("load time zone %q: %w", config.TimeZone, err)
	}
	year, month, day := config.End.In(zone).Date()
	midnight := func(offset int) int64 {
		return time.Date(year, month, day+offset, 0, 0, 0, 0, zone).UnixMilli()
	}
	covered := span{end: config.End.UnixMilli(), start: midnight(-config.Days), zone: zone}
	for offset := 1 - config.Days; offset <= 0; offset++ {
		covered.midnights = append(covered.midnights, midnight(offset))
	}
	return covered, nil
}

// tag is the part of all ids that keeps two samples apart which are imported
// into one database: five characters that depend on the whole config.
func (config Config) tag(covered span) string {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%d %d %d %d %d %s", generation, config.Seed, config.Players, covered.start, covered.end, config.TimeZone)
	return base32(hash.Sum64(), 5)
}

// tagDigits leave out i, l, o and u: no sample's tag can start as those of
// [Live] do, and few make words.
const tagDigits = "0123456789abcdefghjkmnpqrstvwxyz"

// base32 writes the lowest digits of number.
func base32(number uint64, numDigits int) string {
	digits := make([]byte, numDigits)
	for i := numDigits - 1; i >= 0; i-- {
		digits[i] = tagDigits[number%32]
		number /= 32
	}
	return string(digits)
}
