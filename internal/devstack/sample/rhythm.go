package sample

import (
	"math/rand/v2"
	"slices"
	"time"
)

// hourWeights say how busy each local hour is, in percent of the busiest.
func hourWeights() [24]uint32 {
	return [24]uint32{
		70, 45, 30, 20, 13, 10, 10, 14, 20, 25, 30, 35,
		45, 45, 45, 45, 45, 50, 60, 75, 90, 100, 100, 88,
	}
}

// weekdayPercent is how busy Monday to Thursday are beside the other days.
const weekdayPercent = 80

// rhythm knows when people play.
type rhythm struct {
	draws   []int64  // of the lottery, on each day
	end     int64    // milliseconds since 1970
	mean    float64  // weight of the average hour
	start   int64    // milliseconds since 1970
	weights []uint32 // of each hour from start to end, out of 100
}

func newRhythm(covered span) rhythm {
	r := rhythm{end: covered.end, start: covered.start}
	weights := hourWeights()
	sum := uint64(0)
	for at := covered.start; at < covered.end; at += hour {
		local := time.UnixMilli(at).In(covered.zone)
		weight := weights[local.Hour()]
		if day := local.Weekday(); day >= time.Monday && day <= time.Thursday {
			weight = weight * weekdayPercent / 100
		}
		r.weights = append(r.weights, weight)
		sum += uint64(weight)
	}
	r.mean = float64(sum) / float64(len(r.weights)) / 100

	first := time.UnixMilli(covered.start).In(covered.zone)
	for day := 0; ; day++ {
		draw := time.Date(first.Year(), first.Month(), first.Day()+day, drawHour, 0, 0, 0, covered.zone).UnixMilli()
		r.draws = append(r.draws, draw)
		if draw >= covered.end {
			return r
		}
	}
}

// nextSession draws when somebody sits down to play who does so once in
// meanGap milliseconds on average, at the earliest at from. False means not
// before the end.
//
// Candidates come at a constant rate, and stay with the weight of their hour:
// the waits between those that stay have the rhythm of the day.
func (r *rhythm) nextSession(rng *rand.Rand, from, meanGap int64) (int64, bool) {
	meanCandidate := max(1, int64(float64(meanGap)*r.mean))
	at := max(from, r.start)
	for {
		at += exponential(rng, meanCandidate)
		if at >= r.end {
			return 0, false
		}
		if rng.Uint32N(100) < r.weights[(at-r.start)/hour] {
			return at, true
		}
	}
}

// nextDraw returns the first draw of the lottery that comes a minute or more
// after at; the end if there is none.
func (r *rhythm) nextDraw(at int64) int64 {
	i, _ := slices.BinarySearch(r.draws, at+minute)
	if i == len(r.draws) {
		return r.end
	}
	return r.draws[i]
}
