package cli_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_Audit(t *testing.T) {
	t.Parallel()

	findings := cli.AuditReport{
		Findings: []cli.AuditFinding{
			{Audit: "audit_balance", Detail: "balance 5,\x1b[2J\nentries 4", Subject: "wallet 7"},
			{Audit: "audit_outcome"},
		},
		NumAudits: 13,
	}

	t.Run("IsGoodWithoutFindings", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.audit = cli.AuditReport{NumAudits: 13}
		require.Equal(t, cli.ExitGood, bundle.run(t, "audit"))
		require.Equal(t, "13 audits, no findings\n", bundle.out.String())
		require.Equal(t, []string{"audit"}, bundle.actions.calls)
		require.Equal(t, []string{"database"}, bundle.groups)
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("ListsFindingsAndFails", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.audit = findings
		require.Equal(t, cli.ExitFindings, bundle.run(t, "audit"))
		require.Equal(t, 1, cli.ExitFindings)
		require.Equal(t, `13 audits, 2 findings

AUDIT          SUBJECT   DETAIL
audit_balance  wallet 7  balance 5, [2J entries 4
audit_outcome  -         -
`, bundle.out.String())
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("CountsOneAsOne", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.audit = cli.AuditReport{Findings: findings.Findings[:1], NumAudits: 1}
		require.Equal(t, cli.ExitFindings, bundle.run(t, "audit"))
		require.Contains(t, bundle.out.String(), "1 audit, 1 finding\n")
	})

	t.Run("SaysThatThereAreMore", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.audit = cli.AuditReport{Findings: findings.Findings, NumAudits: 13, Truncated: true}
		require.Equal(t, cli.ExitFindings, bundle.run(t, "audit"))
		require.Contains(t, bundle.out.String(), "13 audits, 2 findings shown, and there are more\n")
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.audit = cli.AuditReport{NumAudits: 13}
		require.Equal(t, cli.ExitGood, bundle.run(t, "audit", "--json"))
		require.JSONEq(t, `{"findings": [], "num_audits": 13, "truncated": false}`, bundle.out.String())

		bundle = setup(t)
		bundle.actions.audit = findings
		require.Equal(t, cli.ExitFindings, bundle.run(t, "audit", "--json"))
		require.JSONEq(t, `{"findings": [
			{"audit": "audit_balance", "detail": "balance 5,\u001b[2J\nentries 4", "subject": "wallet 7"},
			{"audit": "audit_outcome", "detail": "", "subject": ""}
		], "num_audits": 13, "truncated": false}`, bundle.out.String())
	})

	t.Run("IsBadWhenItCannotBeFoundOut", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.err = errors.New("reach database: connection refused")
		require.Equal(t, cli.ExitBad, bundle.run(t, "audit"))
		require.Equal(t, "truegreen: reach database: connection refused\n", bundle.errOut.String())
		require.Empty(t, bundle.out.String())
	})

	t.Run("IsBadWhenNothingWasLookedAt", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitBad, bundle.run(t, "audit"))
		require.Equal(t, "truegreen: audit looked at nothing: the database has no audits\n", bundle.errOut.String())
		require.Empty(t, bundle.out.String())
	})
}
