// Package money has the types of amounts and rates. Both are whole numbers: no
// amount is ever a float, and every sum that could leave the range says so.
package money

import (
	"errors"
	"fmt"
	"math"
)

// ErrOverflow is the cause of every error about a sum that does not fit.
var ErrOverflow = errors.New("amount does not fit into 64 bits")

// Minor is an amount in minor units of some currency, such as cents. The
// currency stands beside it. It may be negative.
type Minor int64

// Add returns the sum. Fails with [ErrOverflow] when it does not fit.
func (amount Minor) Add(other Minor) (Minor, error) {
	sum := amount + other
	if (sum > amount) != (other > 0) && other != 0 {
		return 0, fmt.Errorf("add %d to %d: %w", other, amount, ErrOverflow)
	}
	return sum, nil
}

// Sub returns the difference. Fails with [ErrOverflow] when it does not fit.
func (amount Minor) Sub(other Minor) (Minor, error) {
	difference := amount - other
	if (difference < amount) != (other > 0) && other != 0 {
		return 0, fmt.Errorf("subtract %d from %d: %w", other, amount, ErrOverflow)
	}
	return difference, nil
}

// Abs returns the amount without its sign; the most negative amount, whose
// opposite does not fit, becomes the largest.
func (amount Minor) Abs() Minor {
	switch {
	case amount == math.MinInt64:
		return math.MaxInt64
	case amount < 0:
		return -amount
	default:
		return amount
	}
}

// RatePPM is a share in millionths, from 0 to [MaxRatePPM].
type RatePPM int32

// MaxRatePPM is the whole.
const MaxRatePPM RatePPM = 1_000_000

// Valid reports whether the rate lies between 0 and the whole.
func (rate RatePPM) Valid() bool { return rate >= 0 && rate <= MaxRatePPM }
