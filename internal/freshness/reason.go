package freshness

import (
	"fmt"
	"strings"
	"time"
)

// Code names why a process is unready, or what else is worth knowing. Each has a
// runbook of the same name.
type Code string

// The codes of reasons, the most telling first.
const (
	CodeDraining          Code = "draining"
	CodeWorkerIDTaken     Code = "worker_id_taken"
	CodeSchemaMismatch    Code = "schema_mismatch"
	CodeDBReadOnly        Code = "db_readonly"
	CodeDBUnreachable     Code = "db_unreachable"
	CodeSnapshotStale     Code = "snapshot_stale"
	CodeBrokerRefused     Code = "broker_refused"
	CodeBrokerUnreachable Code = "broker_unreachable"
	CodeSlotsStuck        Code = "slots_stuck"
	CodeFetchStalled      Code = "fetch_stalled"
	CodeOwnFailures       Code = "own_failures"
	CodeLoopFailing       Code = "loop_failing"
	CodeLoopStalled       Code = "loop_stalled"
	CodeLagNoProgress     Code = "lag_no_progress"
	CodeSilentNoop        Code = "silent_noop"
	CodeStarting          Code = "starting"
)

// The codes that only inform.
const (
	CodePaused        Code = "paused"
	CodeBehind        Code = "behind"
	CodeDegraded      Code = "degraded"
	CodeLate          Code = "late"
	CodePoolSaturated Code = "pool_saturated"
	CodeClockSkew     Code = "clock_skew"
)

// Codes returns all codes, those of reasons first.
func Codes() []Code {
	return []Code{
		CodeDraining, CodeWorkerIDTaken, CodeSchemaMismatch, CodeDBReadOnly, CodeDBUnreachable, CodeSnapshotStale,
		CodeBrokerRefused, CodeBrokerUnreachable, CodeSlotsStuck, CodeFetchStalled, CodeOwnFailures, CodeLoopFailing, CodeLoopStalled,
		CodeLagNoProgress, CodeSilentNoop, CodeStarting,
		CodePaused, CodeBehind, CodeDegraded, CodeLate, CodePoolSaturated, CodeClockSkew,
	}
}

// Runbook is the path of the code's runbook in the repository.
func (code Code) Runbook() string {
	return "docs/runbooks/" + strings.ReplaceAll(string(code), "_", "-") + ".md"
}

// immediate says that there is nothing to wait for: the next tick would find the
// same.
func (code Code) immediate() bool {
	switch code {
	case CodeDraining, CodeWorkerIDTaken, CodeSchemaMismatch, CodeDBReadOnly, CodeDBUnreachable:
		return true
	default:
		return false
	}
}

// Reason is one thing that is wrong, or worth knowing.
type Reason struct {
	Code       Code              `json:"code"`
	Loop       string            `json:"loop,omitempty"`
	Message    string            `json:"message"`
	Observed   map[string]string `json:"observed,omitempty"`
	Queue      string            `json:"queue,omitempty"`
	Runbook    string            `json:"runbook"`
	Thresholds map[string]string `json:"thresholds,omitempty"`
}

func newReason(code Code, format string, args ...any) Reason {
	return Reason{Code: code, Message: fmt.Sprintf(format, args...), Runbook: code.Runbook()}
}

func (reason Reason) ofLoop(loop string) Reason {
	reason.Loop = loop
	return reason
}

func (reason Reason) ofQueue(queue string) Reason {
	reason.Queue = queue
	return reason
}

// observed adds a value that was seen; threshold, one that it is compared with.
func (reason Reason) observed(name string, value any) Reason {
	reason.Observed = with(reason.Observed, name, value)
	return reason
}

func (reason Reason) threshold(name string, value any) Reason {
	reason.Thresholds = with(reason.Thresholds, name, value)
	return reason
}

func with(values map[string]string, name string, value any) map[string]string {
	if values == nil {
		values = make(map[string]string)
	}
	if duration, ok := value.(time.Duration); ok {
		value = short(duration)
	}
	values[name] = fmt.Sprint(value)
	return values
}

// short rounds to what a reader wants to see: 1m13s, 2.4s, 130ms.
func short(duration time.Duration) time.Duration {
	switch {
	case duration >= 10*time.Second:
		return duration.Round(time.Second)
	case duration >= time.Second:
		return duration.Round(100 * time.Millisecond)
	default:
		return duration.Round(time.Millisecond)
	}
}
