package appconfig

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// namePrefix marks the variables of the environment that are ours.
const namePrefix = "TRUEGREEN_"

// testDatabaseName is obeyed by the tests, and so may be set beside the settings.
const testDatabaseName = "TRUEGREEN_TEST_DATABASE_URL"

// unknownNames has one line for each TRUEGREEN_ name that is no setting.
func unknownNames(environment map[string]string) []string {
	known := []string{testDatabaseName}
	for _, setting := range Settings() {
		known = append(known, setting.Name)
	}

	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if !strings.HasPrefix(name, namePrefix) || slices.Contains(known, name) {
			continue
		}
		line := name + " is not a setting"
		if near := nearest(name, known); near != "" {
			line += fmt.Sprintf("; did you mean %s?", near)
		}
		wrong = append(wrong, line)
	}
	return wrong
}

// nearest returns the candidate with the fewest edits from name, or nothing when
// more than a third of what follows the prefix would have to change.
func nearest(name string, candidates []string) string {
	best, fewest := "", 1+(len(name)-len(namePrefix))/3
	for _, candidate := range candidates {
		if edits := editDistance(name, candidate); edits <= fewest && (best == "" || edits < fewest) {
			best, fewest = candidate, edits
		}
	}
	return best
}

// editDistance counts the bytes to insert, remove or change to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
