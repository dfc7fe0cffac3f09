// Package audit looks for what breaks the laws of the books. Each law is a view
// in the database whose name starts with audit_ and that is empty when the law
// holds; the comment on the view says the law. audit_findings is all of them.
package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
)

// MaxLimit bounds how many findings one look returns: who has more has one cause
// to look for, not findings to read.
const MaxLimit = 100_000

// Beginner is what an audit reads from: a pool or a connection. A transaction is
// none, since its isolation cannot be changed any more.
type Beginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Finding is one thing that breaks a law.
type Finding struct {
	Audit   string // the view of the law, such as audit_ledger_balanced
	Detail  string // what is wrong, for people
	Subject string // what it is wrong of, such as a run, or a reference of the ledger
}

// Report is what a look at all laws found.
type Report struct {
	Findings  []Finding // in order of audit, subject, detail; empty when all is well
	NumAudits int       // laws that were looked at; 0 means that nothing is known
	Truncated bool      // there are more findings than the limit; which ones came is not promised
}

// Run looks at all laws in one transaction that changes nothing and sees one
// state, however much is booked meanwhile. It returns up to limit findings, from 1
// to [MaxLimit].
//
// It reads whole tables, the ledger among them: seconds for each million entries.
// It keeps nobody waiting, and has no timeout of its own.
//
// Fails with [fault.KindInvalid] for a limit out of bounds.
func Run(ctx context.Context, db Beginner, limit int) (Report, error) {
	if limit < 1 || limit > MaxLimit {
		return Report{}, fault.Invalid("audit: limit must be from 1 to %d, got %d", MaxLimit, limit)
	}
	options := pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}
	var report Report
	err := pgx.BeginTxFunc(ctx, db, options, func(tx pgx.Tx) error {
		found, err := look(ctx, tx, limit)
		report = found
		return err
	})
	if err != nil {
		return Report{}, fmt.Errorf("audit the books: %w", err)
	}
	return report, nil
}

func look(ctx context.Context, tx pgx.Tx, limit int) (Report, error) {
	queries := dbsqlc.New()
	if err := queries.AuditPlanScans(ctx, tx); err != nil {
		return Report{}, fmt.Errorf("set up planner: %w", err)
	}
	numAudits, err := queries.AuditCount(ctx, tx)
	if err != nil {
		return Report{}, fmt.Errorf("count audits: %w", err)
	}
	rows, err := queries.AuditFindingList(ctx, tx, &dbsqlc.AuditFindingListParams{MaxFindings: int32(limit) + 1})
	if err != nil {
		return Report{}, fmt.Errorf("list findings: %w", err)
	}

	report := Report{NumAudits: int(numAudits), Truncated: len(rows) > limit}
	for _, row := range rows[:min(len(rows), limit)] {
		report.Findings = append(report.Findings, Finding{Audit: row.Audit, Detail: row.Detail, Subject: row.Subject})
	}
	slices.SortFunc(report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Audit, b.Audit), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Detail, b.Detail))
	})
	return report, nil
}
