package api_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/api"
	"truegreen/internal/freshness"
	"truegreen/internal/pgconnect"
)

// monitor gives the answers of the test's choice.
type monitor struct {
	live, ready, startup freshness.Answer
}

func (monitor *monitor) Live() freshness.Answer    { return monitor.live }
func (monitor *monitor) Ready() freshness.Answer   { return monitor.ready }
func (monitor *monitor) Startup() freshness.Answer { return monitor.startup }

func ask(t *testing.T, handler http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return recorder
}

func TestNewProbes(t *testing.T) {
	t.Parallel()

	age := "2.1s"
	handler := api.NewProbes(&monitor{
		live: freshness.Answer{OK: true, Status: "live"},
		ready: freshness.Answer{
			DB:   freshness.DBOK,
			Info: []freshness.Reason{},
			Reasons: []freshness.Reason{{
				Code: freshness.CodeLoopStalled, Loop: "outbox_wallet", Message: "outbox_wallet: no success for 1m13s, red after 1m0s",
				Observed: map[string]string{"age": "1m13s"}, Runbook: "docs/runbooks/loop-stalled.md",
				Thresholds: map[string]string{"red_after": "1m0s"},
			}},
			Since:       time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC),
			SnapshotAge: &age,
			Status:      "not_ready",
			Worker:      "w1",
		},
		startup: freshness.Answer{Status: "starting"},
	})

	t.Run("AnswersByStatus", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, http.StatusOK, ask(t, handler, http.MethodGet, "/livez").Code)
		require.Equal(t, http.StatusServiceUnavailable, ask(t, handler, http.MethodGet, "/readyz").Code)
		require.Equal(t, http.StatusServiceUnavailable, ask(t, handler, http.MethodGet, "/startupz").Code)
		require.Equal(t, http.StatusOK, ask(t, handler, http.MethodHead, "/livez").Code)
	})

	t.Run("SaysWhy", func(t *testing.T) {
		t.Parallel()

		response := ask(t, handler, http.MethodGet, "/readyz")
		require.Equal(t, "application/json; charset=utf-8", response.Header().Get("Content-Type"))
		require.Equal(t, "no-store", response.Header().Get("Cache-Control"))
		require.JSONEq(t, `{
			"db": "ok",
			"info": [],
			"reasons": [{
				"code": "loop_stalled",
				"loop": "outbox_wallet",
				"message": "outbox_wallet: no success for 1m13s, red after 1m0s",
				"observed": {"age": "1m13s"},
				"runbook": "docs/runbooks/loop-stalled.md",
				"thresholds": {"red_after": "1m0s"}
			}],
			"since": "2026-11-02T03:04:05Z",
			"snapshot_age": "2.1s",
			"status": "not_ready",
			"worker": "w1"
		}`, response.Body.String())
	})

	t.Run("RefusesOtherMethodsAndPaths", func(t *testing.T) {
		t.Parallel()

		response := ask(t, handler, http.MethodPost, "/readyz")
		require.Equal(t, http.StatusMethodNotAllowed, response.Code)
		require.Equal(t, "GET, HEAD", response.Header().Get("Allow"))
		require.Equal(t, http.StatusNotFound, ask(t, handler, http.MethodGet, "/readyz/x").Code)
	})
}

func TestNewServer(t *testing.T) {
	t.Parallel()

	// A real monitor that never ran answers too.
	process, err := freshness.NewProcess(freshness.ProcessConfig{})
	require.NoError(t, err)
	nowhere, err := pgconnect.Parse("postgres://127.0.0.1:1/none")
	require.NoError(t, err)
	idle, err := freshness.NewMonitor(process, freshness.MonitorConfig{Database: nowhere, SchemaVersion: 1, WorkerID: "w1"})
	require.NoError(t, err)
	server := api.NewServer("127.0.0.1:0", api.NewProbes(idle), slog.New(slog.DiscardHandler))
	require.NotZero(t, server.ReadHeaderTimeout)

	response := ask(t, server.Handler, http.MethodGet, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, response.Code)
	var answer struct {
		Reasons []struct {
			Code string `json:"code"`
		} `json:"reasons"`
	}
	require.NoError(t, json.Unmarshal(response.Body.Bytes(), &answer))
	require.Equal(t, "starting", answer.Reasons[0].Code)
	require.Equal(t, http.StatusOK, ask(t, server.Handler, http.MethodGet, "/livez").Code)
}
