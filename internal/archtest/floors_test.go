package archtest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
)

const (
	module = "truegreen"
	root   = "../.."
)

// place is where a package stands. It may import what is on a lower floor, and
// on its own floor what has a lower step.
type place struct{ floor, step int }

// places has every package, by its path in the module; a package that is not
// listed stands where its parent folder does. The tests of a package may import
// from any floor: relays are tested on real brokers.
var places = map[string]place{
	"cmd/server":               {5, 4},
	"internal/app":             {5, 3},
	"internal/devstack":        {5, 2},
	"internal/devstack/sample": {5, 1},
	"internal/appconfig":       {5, 0},
	"internal/api":             {4, 0},
	"internal/cli":             {4, 0},
	"internal/console":         {4, 0},
	"internal/publish":         {4, 0},
	"workers":                  {4, 0},
	"internal/operator":        {3, 2},
	"internal/activity":        {3, 1},
	"internal/settlement":      {3, 0},
	"internal/agent":           {2, 2},
	"internal/audit":           {2, 0},
	"internal/reconcile":       {2, 0},
	"internal/rolling":         {2, 2},
	"internal/wallet":          {2, 2},
	"internal/outbox":          {2, 1},
	"internal/freshness":       {2, 0},
	"internal/childproc":       {1, 0},
	"internal/dbsqlc":          {1, 0},
	"internal/pgconnect":       {1, 0},
	"internal/pgtx":            {1, 0},
	"internal/programme":       {1, 0},
	"internal/telemetry":       {1, 0},
	"internal/fault":           {0, 0},
	"internal/money":           {0, 0},
	"internal/nearest":         {0, 0},
	"internal/timewindow":      {0, 0},
	"jobs":                     {0, 0},
	"migrations":               {1, 1},
}

// testSupport may import everything, and is imported by tests alone.
var testSupport = []string{"bench", "internal/archtest", "internal/dbfactory", "internal/dbtest", "test"}

const (
	facesFloor = 4
	testFloor  = 6
)

// listed is a package as go list sees it.
type listed struct {
	ImportPath string
	Imports    []string
}

func TestFloors(t *testing.T) {
	t.Parallel()

	t.Run("EveryImportLeadsDown", func(t *testing.T) {
		t.Parallel()

		require.Empty(t, floorViolations(listPackages(t)))
	})

	t.Run("AForbiddenImportIsFound", func(t *testing.T) {
		t.Parallel()

		for _, forbidden := range []listed{
			{"truegreen/internal/wallet", []string{"truegreen/internal/activity"}},
			{"truegreen/internal/wallet", []string{"truegreen/internal/rolling"}},
			{"truegreen/internal/freshness", []string{"truegreen/internal/outbox"}},
			{"truegreen/internal/settlement", []string{"truegreen/internal/operator"}},
			{"truegreen/internal/publish/natspublish", []string{"truegreen/internal/api"}},
			{"truegreen/internal/publish/natspublish", []string{"truegreen/internal/publish/kafkapublish"}},
			{"truegreen/internal/cli", []string{"truegreen/internal/dbsqlc"}},
			{"truegreen/internal/cli", []string{"truegreen/internal/appconfig"}},
			{"truegreen/workers", []string{"truegreen/internal/cli"}},
			{"truegreen/jobs", []string{"truegreen/internal/money"}},
			{"truegreen/internal/app", []string{"truegreen/internal/dbtest"}},
			{"truegreen/internal/nowhere", nil},
		} {
			require.Len(t, floorViolations([]listed{forbidden}), 1, "%+v", forbidden)
		}
	})

	t.Run("AnAllowedImportIsNot", func(t *testing.T) {
		t.Parallel()

		require.Empty(t, floorViolations([]listed{
			{"truegreen/cmd/server", []string{"truegreen/internal/app", "os"}},
			{"truegreen/internal/app", []string{"truegreen/internal/devstack", "truegreen/internal/publish/natspublish"}},
			{"truegreen/internal/operator", []string{"truegreen/internal/settlement", "truegreen/internal/dbsqlc"}},
			{"truegreen/internal/wallet", []string{"truegreen/internal/outbox"}},
			{"truegreen/internal/dbfactory", []string{"truegreen/internal/dbtest"}},
			{"truegreen/test/e2e", []string{"truegreen/internal/dbtest", "truegreen/internal/app"}},
		}))
	})
}

func floorViolations(packages []listed) []string {
	var violations []string
	for _, importer := range packages {
		name := strings.TrimPrefix(importer.ImportPath, module+"/")
		from, known := placeOf(name)
		if !known {
			violations = append(violations, name+" has no floor: give it one in internal/archtest/floors_test.go")
			continue
		}
		for _, path := range importer.Imports {
			imported, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				continue
			}
			if to, _ := placeOf(imported); !mayImport(from, to) {
				violations = append(violations, fmt.Sprintf("%s must not import %s", name, imported))
			} else if from.floor == facesFloor && imported == "internal/dbsqlc" {
				violations = append(violations, name+" is a face and must not see the rows of internal/dbsqlc")
			}
		}
	}
	return violations
}

func mayImport(from, to place) bool {
	if from.floor == to.floor {
		return to.step < from.step || from.floor == testFloor
	}
	return to.floor < from.floor
}

// placeOf is false for a package that has none.
func placeOf(name string) (place, bool) {
	for ; name != "."; name = filepath.Dir(name) {
		if slices.Contains(testSupport, name) {
			return place{floor: testFloor}, true
		}
		if found, ok := places[name]; ok {
			return found, true
		}
	}
	return place{}, false
}

// listPackages is go list ./..., also of a tree that does not compile.
func listPackages(t *testing.T) []listed {
	t.Helper()
	command := childproc.Command(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports", "./...")
	command.Dir = root
	output, err := command.Output()
	require.NoError(t, err)

	var packages []listed
	decoder := json.NewDecoder(strings.NewReader(string(output)))
	for {
		var one listed
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		packages = append(packages, one)
	}
	require.Greater(t, len(packages), 10, "go list finds the packages of the house")
	return packages
}
