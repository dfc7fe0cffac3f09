package cli

import (
	"context"
	"io"

	"truegreen/migrations"
)

// Actions are what the commands do. Each is called at most once per process, by
// its command, after [Options.Read].
type Actions interface {
	OutboxActions
	ProgrammeActions
	SettlementActions

	// Audit looks for what breaks the invariants of the books. What it finds is no
	// error; an error means that it could not be found out.
	Audit(ctx context.Context) (AuditReport, error)

	// BrokerProvision creates or updates the broker's streams, and says of each
	// what it did.
	BrokerProvision(ctx context.Context) ([]BrokerStream, error)

	// Dev runs the development stack until ctx is done, and then returns nil.
	Dev(ctx context.Context, options DevOptions) error

	// Healthcheck asks a running process. check is "ready", "live" or "startup".
	// An error means that it did not answer.
	Healthcheck(ctx context.Context, check string) (Health, error)

	// Import applies the lines of one source, which may be packed with gzip. An
	// error names the source, the line, and what became of those before it.
	Import(ctx context.Context, source ImportSource) (ImportResult, error)

	// LoopPause keeps a loop from working.
	LoopPause(ctx context.Context, change LoopChange) error

	// LoopResume ends the pause of a loop.
	LoopResume(ctx context.Context, change LoopChange) error

	// MigrateDown undoes the newest migration and returns its name; empty when
	// there was none.
	MigrateDown(ctx context.Context) (string, error)

	// MigrateStatus lists the migrations, in order.
	MigrateStatus(ctx context.Context) ([]migrations.Status, error)

	// MigrateUp applies what is missing and returns the names, in order.
	MigrateUp(ctx context.Context) ([]string, error)

	// Sample writes sample activity to out.
	Sample(ctx context.Context, out io.Writer, options SampleOptions) error

	// Status reports how everything stands. An error means that it could not be
	// found out.
	Status(ctx context.Context) (StatusReport, error)

	// Worker works until ctx is done, and then returns nil.
	Worker(ctx context.Context) error
}

// BrokerStream is a stream of the broker after it was provisioned.
type BrokerStream struct {
	Change     string `json:"change"`         // "created", "updated" or "unchanged"
	Durability string `json:"durability"`     // replicas and syncing, in words
	Name       string `json:"name"`           // such as TRUEGREEN_WALLET
	Note       string `json:"note,omitempty"` // what an operator should think about
	Subjects   string `json:"subjects"`       // such as truegreen.wallet.>
}

// DevOptions are the flags of dev that are no settings.
type DevOptions struct {
	BrokerPort   int    // preferred port of NATS; 0 takes a free one
	DataDir      string // never empty
	Fresh        bool   // removes the data of earlier runs first
	NoSample     bool   // leaves the database empty
	PostgresPort int    // preferred port of Postgres; 0 takes a free one
}

// Health is the answer of a running process.
type Health struct {
	Healthy bool
	Text    string // what it said of itself, for people
}

// ImportSource is one file of lines, as it is.
type ImportSource struct {
	Lines io.Reader
	Name  string // the file's name as it was given, or "standard input"
}

// ImportResult counts the lines of one source.
type ImportResult struct {
	NumApplied   int64 `json:"num_applied"`   // changed something
	NumLines     int64 `json:"num_lines"`     // all of them
	NumRefused   int64 `json:"num_refused"`   // bets and withdrawals without funds
	NumUnchanged int64 `json:"num_unchanged"` // known before

	Refused []ImportRefused `json:"refused"` // the first of them
}

// ImportRefused is a bet or withdrawal that was stored as refused, since the wallet
// had less than it needed. Amounts are minor units of the player's currency.
type ImportRefused struct {
	Amount  int64  `json:"amount,string"`
	Balance int64  `json:"balance,string"` // at that moment
	ID      string `json:"id"`
	Line    int64  `json:"line"`
	Player  string `json:"player"`
	Type    string `json:"type"` // bet or withdrawal
}

// LoopChange is a pause or the end of one.
type LoopChange struct {
	As     string // who wants it; never empty
	Loop   string
	Reason string // never empty
}

// SampleOptions are the flags of sample.
type SampleOptions struct {
	Days    int // above 0
	Players int // above 0
	Seed    uint64
}
