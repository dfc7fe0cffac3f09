package sample

import (
	"math"
	"math/rand/v2"
)

// between draws evenly from bounds[0] up to, but not including, bounds[1].
func between(rng *rand.Rand, bounds [2]int64) int64 {
	return bounds[0] + rng.Int64N(bounds[1]-bounds[0])
}

// oneIn is true once in n times.
func oneIn(rng *rand.Rand, n uint32) bool { return rng.Uint32N(n) == 0 }

// exponential draws the wait for something that happens at any time alike.
func exponential(rng *rand.Rand, mean int64) int64 {
	return int64(math.Round(float64(mean) * rng.ExpFloat64()))
}

// logNormal returns what lies z deviations from the median of a log-normal
// distribution.
func logNormal(median, sigma, z float64) float64 {
	return median * math.Exp(sigma*z)
}

// unitsOf returns how many minor units the base unit of a currency has: what
// amounts are drawn in, about one US cent.
func unitsOf(currency string) int64 {
	if currency == "KRW" {
		return 10
	}
	return 1
}

// chips rounds an amount in base units down to 1, 2, 3 or 5 times a power of
// ten, and up to at least 10.
func chips(units int64) int64 {
	power := int64(10)
	for power <= units/10 {
		power *= 10
	}
	for _, chip := range [...]int64{5, 3, 2} {
		if units >= chip*power {
			return chip * power
		}
	}
	return power
}

// leastDeposit in base units.
const leastDeposit = 1000

// deposit returns a deposit of about so many base units, as people round them:
// up to half a power of ten.
func deposit(units int64) int64 {
	step := int64(leastDeposit) / 2
	for step <= units/20 {
		step *= 10
	}
	return max(leastDeposit, (units+step-1)/step*step)
}

// withdrawalStep is what a withdrawal is a multiple of, in base units.
const withdrawalStep = 1000

// withdrawal returns a part of a balance, in minor units, given in percent and
// rounded down; 0 if that is too little to withdraw.
func withdrawal(balance, percent, unit int64) int64 {
	step := withdrawalStep * unit
	return balance / 100 * percent / step * step
}
