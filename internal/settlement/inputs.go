package settlement

import (
	"context"
	"fmt"
	"strings"
	"time"

	"truegreen/internal/dbsqlc"
)

// Watermark is how far one source has sent everything.
type Watermark struct {
	At     *time.Time // nil: the source never said
	Source string
}

// inputs are the watermarks that a calculation rests on.
type inputs []Watermark

// readInputs reads the watermarks of the sources that a programme needs.
func readInputs(ctx context.Context, db dbsqlc.DBTX, sources []string) (inputs, error) {
	rows, err := queries.InputWatermarkFind(ctx, db, &dbsqlc.InputWatermarkFindParams{Sources: sources})
	if err != nil {
		return nil, fmt.Errorf("read watermarks: %w", err)
	}
	found := make(inputs, 0, len(sources))
	for _, source := range sources {
		mark := Watermark{Source: source}
		for _, row := range rows {
			if row.Source == source {
				mark.At = &row.At
			}
		}
		found = append(found, mark)
	}
	return found, nil
}

// lowest is the instant up to which nothing is missing; nil when a source never
// said.
func (inputs inputs) lowest() *time.Time {
	var lowest *time.Time
	for _, mark := range inputs {
		if mark.At == nil {
			return nil
		}
		if lowest == nil || mark.At.Before(*lowest) {
			lowest = mark.At
		}
	}
	return lowest
}

// reach reports whether nothing before an instant is missing.
func (inputs inputs) reach(instant time.Time) bool {
	lowest := inputs.lowest()
	return lowest != nil && !lowest.Before(instant)
}

// String says how far each source is, for people.
func (inputs inputs) String() string {
	words := make([]string, 0, len(inputs))
	for _, mark := range inputs {
		at := "never set"
		if mark.At != nil {
			at = mark.At.UTC().Format(time.RFC3339)
		}
		words = append(words, mark.Source+" "+at)
	}
	return strings.Join(words, ", ")
}
