package api

import (
	"encoding/json"
	"net/http"

	"truegreen/internal/freshness"
)

// Monitor answers the probes. It must answer from memory: a probe takes the same
// short time while the database hangs.
type Monitor interface {
	Live() freshness.Answer
	Ready() freshness.Answer
	Startup() freshness.Answer
}

// NewProbes returns the handler of GET and HEAD /livez, /readyz and /startupz:
// 200 or 503 with the [freshness.Answer] as JSON, never to be stored. Other
// methods get 405, other paths 404. It wants no authentication.
func NewProbes(monitor Monitor) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/livez", probe(monitor.Live))
	mux.Handle("/readyz", probe(monitor.Ready))
	mux.Handle("/startupz", probe(monitor.Startup))
	return mux
}

func probe(ask func() freshness.Answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed, use GET", http.StatusMethodNotAllowed)
			return
		}

		answer := ask()
		body, err := json.MarshalIndent(answer, "", "  ")
		if err != nil {
			http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		status := http.StatusOK
		if !answer.OK {
			status = http.StatusServiceUnavailable
		}
		w.WriteHeader(status)
		// A prober that hung up has no use for an error.
		_, _ = w.Write(append(body, '\n'))
	})
}
