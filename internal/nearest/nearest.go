// Package nearest finds what somebody meant who mistyped a word.
package nearest

// maxShare is the part of a word that may be mistyped: a quarter.
const maxShare = 4

// Of returns the candidate with the fewest edits from word, the likeliest of several,
// or nothing when more than a quarter of the word would have to change: one that
// shares no more than a letter or two would lead astray. One edit is always few
// enough for words of three letters and more. An edit inserts, removes or changes
// a byte, or swaps two neighbours.
func Of(word string, candidates []string) string {
	if len(word) < 3 {
		return ""
	}
	best, most, fewest := "", max(1, len(word)/maxShare), 0
	for _, candidate := range candidates {
		edits := distance(word, candidate)
		if edits > most {
			continue
		}
		// Of two that are as near, the one that begins alike: few mistype the start.
		edits *= 2
		if candidate != "" && candidate[0] != word[0] {
			edits++
		}
		if best == "" || edits < fewest {
			best, fewest = candidate, edits
		}
	}
	return best
}

// distance counts the edits that turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
