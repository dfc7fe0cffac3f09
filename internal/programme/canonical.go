package programme

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/timewindow"
)

// stored is the stored form of terms: the names of the file, in its order.
// A field may be added if it is left out where it says nothing, so that terms
// which were stored before keep their bytes; none may be renamed or moved,
// because hashes are taken of this.
type stored struct {
	Code             string                   `json:"code"`
	Kind             Kind                     `json:"kind"`
	Currency         string                   `json:"currency"`
	Period           timewindow.Kind          `json:"period"`
	TimeZone         string                   `json:"time_zone"`
	EffectiveFrom    timewindow.Day           `json:"effective_from"`
	Grace            duration                 `json:"grace"`
	InputsDeadline   duration                 `json:"inputs_deadline"`
	Basis            Basis                    `json:"basis"`
	Window           duration                 `json:"window,omitempty"` // 0: none
	Categories       map[string]money.RatePPM `json:"categories"`
	DefaultWeight    money.RatePPM            `json:"default_weight_ppm"`
	TierBy           TierBy                   `json:"tier_by"`
	Shape            Shape                    `json:"shape"`
	Tiers            []Tier                   `json:"tiers"`
	Cap              *money.Minor             `json:"cap"`
	MinPayout        money.Minor              `json:"min_payout"`
	LessPromotions   bool                     `json:"less_promotions"`
	Budget           *Budget                  `json:"budget,omitempty"`
	AutoApproveBelow *money.Minor             `json:"auto_approve_below"`
	MaxAttempts      int                      `json:"max_attempts"`
	OnPartial        OnPartial                `json:"on_partial"`
}

// duration is written as Go writes it, such as 2h0m0s.
type duration time.Duration

// MarshalText returns the form that time.ParseDuration reads.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("read duration: %w", err)
	}
	*d = duration(parsed)
	return nil
}

// Canonical returns the stored form of the terms: one JSON object with the field
// names of the file, every field written out, in a fixed order. Amounts and rates
// are plain numbers, durations and the day are text, what has no bound is null,
// and so are categories when each counts in full. Only window and budget are left
// out where there is none. Equal terms have equal bytes.
//
// Fails with [fault.KindInvalid] for terms that are not valid.
func (terms Terms) Canonical() ([]byte, error) {
	if err := terms.Validate(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(stored{
		AutoApproveBelow: terms.AutoApproveBelow,
		Basis:            terms.Basis,
		Budget:           terms.Budget,
		Cap:              terms.Cap,
		Categories:       terms.Categories,
		Code:             terms.Code,
		Currency:         terms.Currency,
		DefaultWeight:    terms.DefaultWeight,
		EffectiveFrom:    terms.EffectiveFrom,
		Grace:            duration(terms.Grace),
		InputsDeadline:   duration(terms.InputsDeadline),
		Kind:             terms.Kind,
		LessPromotions:   terms.LessPromotions,
		MaxAttempts:      terms.MaxAttempts,
		MinPayout:        terms.MinPayout,
		OnPartial:        terms.OnPartial,
		Period:           terms.Period,
		Shape:            terms.Shape,
		TierBy:           terms.TierBy,
		Tiers:            terms.Tiers,
		TimeZone:         terms.TimeZone,
		Window:           duration(terms.Window),
	})
	if err != nil {
		return nil, fmt.Errorf("write terms of programme %s: %w", terms.Code, err)
	}
	return text, nil
}

// Decode reads the stored form, of whatever order and spacing: what a jsonb
// column gives back counts too. Fails with [fault.KindInvalid] for anything that
// [Terms.Canonical] would not have written, such as terms of a later version.
func Decode(canonical []byte) (Terms, error) {
	var read stored
	decoder := json.NewDecoder(bytes.NewReader(canonical))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return Terms{}, fault.Invalid("read stored terms: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Terms{}, fault.Invalid("read stored terms: more follows after the object")
	}
	terms := Terms{
		AutoApproveBelow: read.AutoApproveBelow,
		Basis:            read.Basis,
		Budget:           read.Budget,
		Cap:              read.Cap,
		Categories:       read.Categories,
		Code:             read.Code,
		Currency:         read.Currency,
		DefaultWeight:    read.DefaultWeight,
		EffectiveFrom:    read.EffectiveFrom,
		Grace:            time.Duration(read.Grace),
		InputsDeadline:   time.Duration(read.InputsDeadline),
		Kind:             read.Kind,
		LessPromotions:   read.LessPromotions,
		MaxAttempts:      read.MaxAttempts,
		MinPayout:        read.MinPayout,
		OnPartial:        read.OnPartial,
		Period:           read.Period,
		Shape:            read.Shape,
		TierBy:           read.TierBy,
		Tiers:            read.Tiers,
		TimeZone:         read.TimeZone,
		Window:           time.Duration(read.Window),
	}
	written, err := terms.Canonical()
	if err != nil {
		return Terms{}, fmt.Errorf("read stored terms: %w", err)
	}
	same, err := isSameJSON(canonical, written)
	if err != nil {
		return Terms{}, err
	}
	if !same {
		// A cap that is not there must not be taken for none.
		return Terms{}, fault.Invalid("read stored terms of programme %q: not as they were written, which is %s", terms.Code, written)
	}
	return terms, nil
}

// isSameJSON compares values, whatever the order of keys and the spacing.
func isSameJSON(one, other []byte) (bool, error) {
	var values []any
	for _, text := range [][]byte{one, other} {
		var value any
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&value); err != nil {
			return false, fault.Invalid("read stored terms: %w", err)
		}
		values = append(values, value)
	}
	return reflect.DeepEqual(values[0], values[1]), nil
}

// Hash returns the SHA-256 of [Terms.Canonical] in hexadecimal: the same for
// equal terms, wherever they were read from. Fails as Canonical does.
func (terms Terms) Hash() (string, error) {
	text, err := terms.Canonical()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
