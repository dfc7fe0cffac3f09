package appconfig

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"truegreen/internal/nearest"
)

// namePrefix marks the variables of the environment that are ours.
const namePrefix = "TRUEGREEN_"

// testDatabaseName is obeyed by the tests, and so may be set beside the settings.
const testDatabaseName = "TRUEGREEN_TEST_DATABASE_URL"

// unknownNames has one line for each TRUEGREEN_ name that is no setting.
func unknownNames(environment map[string]string) []string {
	known := []string{strings.TrimPrefix(testDatabaseName, namePrefix)}
	for _, setting := range Settings() {
		if name, ours := strings.CutPrefix(setting.Name, namePrefix); ours {
			known = append(known, name)
		}
	}

	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if !strings.HasPrefix(name, namePrefix) || slices.Contains(known, strings.TrimPrefix(name, namePrefix)) {
			continue
		}
		line := name + " is not a setting"
		if near := nearest.Of(strings.TrimPrefix(name, namePrefix), known); near != "" {
			line += fmt.Sprintf("; did you mean %s?", namePrefix+near)
		}
		wrong = append(wrong, line)
	}
	return wrong
}
