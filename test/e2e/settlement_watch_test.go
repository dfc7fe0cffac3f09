package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSettlement_Watchdog lets no job of a worker be worked at all. Who has to say
// that nobody is paid is no job, and says it all the same.
func TestSettlement_Watchdog(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	s := setup(ctx, t)
	s.promote(ctx, t, cashback)
	for _, statement := range []string{
		`CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.state := 'scheduled'; NEW.scheduled_at := now() + interval '1 day'; RETURN NEW; END $$`,
		`CREATE TRIGGER put_off BEFORE INSERT ON river_job FOR EACH ROW EXECUTE FUNCTION put_off()`,
		`ALTER TABLE programme_version DISABLE TRIGGER USER`,
		`UPDATE programme_version SET approved_at = approved_at - interval '1 hour'`,
		`ALTER TABLE programme_version ENABLE TRIGGER USER`,
	} {
		_, err := s.database.Pool.Exec(ctx, statement)
		require.NoError(t, err)
	}
	publishing := s.startWorker(t, s.settlementEnvironment("TRUEGREEN_LOOPS=outbox")...)
	settling := s.startWorker(t, s.settlementEnvironment("TRUEGREEN_LOOPS=settlement")...)

	require.Eventually(t, func() bool { return settling.logs.alarm(settledWeek) != nil }, patience, poll)
	alarm := settling.logs.alarm(settledWeek)
	require.Equal(t, "ERROR", alarm["level"])
	require.Equal(t, "period_without_run", alarm["alarm"])
	require.Equal(t, "weekly", alarm["programme"])
	require.Equal(t, "truegreen settlement run weekly 2026-W45", alarm["do"])
	require.Equal(t, "docs/runbooks/settlement-period-without-run.md", alarm["runbook"])
	require.Nil(t, publishing.logs.alarm(settledWeek), "who does not settle leaves it to those who do")

	out, err := s.run(ctx, t, "", "status")
	require.Error(t, err)
	// In one line with those of the weeks that have ended since.
	require.Regexp(t, `page: \d+ × period_without_run, the oldest for \S+ .*: period 2026-W45 of weekly, `, out)
}

// alarm is the first line that tells of an alarm of a period; nil for none.
func (b *logBuffer) alarm(period string) map[string]any {
	for line := range strings.Lines(b.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == "settlement alarm" && entry["period"] == period {
			return entry
		}
	}
	return nil
}
