package settlement_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
	"truegreen/internal/programme"
)

func parse(t *testing.T, text string) []programme.Terms {
	t.Helper()
	terms, err := programme.Parse("test", strings.NewReader(text))
	require.NoError(t, err)
	return terms
}

func TestService_Apply(t *testing.T) {
	t.Parallel()

	t.Run("CountsVersionsFromOneAndLeavesTheSameTermsAlone", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		first, err := bundle.service.Apply(ctx, parse(t, weekly), "maker")
		require.NoError(t, err)
		require.Equal(t, 1, first[0].Number)
		require.False(t, first[0].Unchanged)
		same, err := bundle.service.Apply(ctx, parse(t, weekly), "other")
		require.NoError(t, err)
		require.Equal(t, 1, same[0].Number)
		require.True(t, same[0].Unchanged)
		require.Equal(t, "maker", same[0].CreatedBy)
		second, err := bundle.service.Apply(ctx, parse(t, strings.Replace(weekly, "100000}", "90000}", 1)), "maker")
		require.NoError(t, err)
		require.Equal(t, 2, second[0].Number)
		require.NotEqual(t, first[0].Hash, second[0].Hash)

		versions, err := bundle.service.Versions(ctx)
		require.NoError(t, err)
		require.Len(t, versions, 2)
		require.Equal(t, parse(t, weekly)[0], versions[0].Terms)
	})

	t.Run("IsAllOrNothing", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for field, changed := range map[string]string{
			"currency":  "currency: USD",
			"period":    "period: daily",
			"time_zone": "time_zone: UTC",
		} {
			original := map[string]string{"currency": "currency: KRW", "period": "period: weekly", "time_zone": "time_zone: Asia/Seoul"}[field]
			text := strings.Replace(weekly, "code: weekly", "code: a-new", 1) +
				strings.TrimPrefix(strings.Replace(weekly, original, changed, 1), "programmes:\n")
			_, err := bundle.service.Apply(ctx, parse(t, text), "maker")
			require.True(t, fault.Is(err, fault.KindInvalid), "%v", err)
			require.ErrorContains(t, err, "apply programme weekly: its "+field+" is ")
			require.ErrorContains(t, err, "give the new programme a code of its own")
		}
		versions, err := bundle.service.Versions(ctx)
		require.NoError(t, err)
		require.Len(t, versions, 1)
	})
}

func TestService_ApproveVersion(t *testing.T) {
	t.Parallel()

	t.Run("WantsSomebodyOtherThanTheMaker", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		_, err := bundle.service.Apply(ctx, parse(t, weekly), "maker")
		require.NoError(t, err)
		_, err = bundle.service.ApproveVersion(ctx, "weekly", 1, "maker")
		require.True(t, fault.Is(err, fault.KindInvalid), "%v", err)
		require.ErrorContains(t, err, "maker made it, so somebody else must approve it")
		require.NotContains(t, err.Error(), "--as", "it does not advise the way round")
		_, err = bundle.service.ApproveVersion(ctx, "weekly", 2, "checker")
		require.True(t, fault.Is(err, fault.KindNotFound), "%v", err)
		_, err = bundle.service.ApproveVersion(ctx, "monthly", 1, "checker")
		require.True(t, fault.Is(err, fault.KindNotFound), "%v", err)
		version, err := bundle.service.ApproveVersion(ctx, "weekly", 1, "checker")
		require.NoError(t, err)
		require.Equal(t, "checker", version.ApprovedBy)
		_, err = bundle.service.ApproveVersion(ctx, "weekly", 1, "checker")
		require.ErrorContains(t, err, "it was approved by checker at ")
	})

	t.Run("TheVersionInForceAtThePeriodsStartCounts", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.programme(ctx, t, strings.NewReplacer("2026-11-02", "2026-11-09", "100000}", "50000}").Replace(weekly))
		_, err := bundle.service.Apply(ctx, parse(t, strings.Replace(weekly, "100000}", "10000}", 1)), "maker") // never approved
		require.NoError(t, err)
		bundle.work(ctx, t)
		bundle.tick(ctx, t)
		require.Equal(t, "2026-W45:1 2026-W46:2", scalar[string](ctx, t, bundle.db,
			"SELECT string_agg(period || ':' || version, ' ' ORDER BY period) FROM settlement_results WHERE period <= '2026-W46'"))
	})
}

func TestSchema_Settlement(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle := setup(ctx, t, defaultConfig())
	bundle.programme(ctx, t, weekly)
	bundle.loser(ctx, t, "a", 1000)
	bundle.loser(ctx, t, "b", 1000)
	bundle.status(ctx, t, "b", "frozen")
	bundle.watermark(ctx, t, weekEnd())
	bundle.work(ctx, t)
	done := bundle.settle(ctx, t).RunID
	require.NoError(t, bundle.client.StopAndCancel(ctx))
	_, err := bundle.service.Plan(ctx, "weekly", "2026-W46", "person")
	require.NoError(t, err)

	for name, refused := range map[string]struct{ statement, text string }{
		"AVersionChanges":               {"UPDATE programme_version SET rules = '{}'", "versions of programmes never change"},
		"AVersionIsDeleted":             {"DELETE FROM programme_version", "versions of programmes never change"},
		"VersionsAreEmptied":            {"TRUNCATE programme_version CASCADE", "never change|append-only|evidence"},
		"AMakerApproves":                {"INSERT INTO programme_version (approved_at, approved_by, created_by, effective_from, programme_id, rules, rules_hash, version) SELECT now(), 'x', 'x', now(), programme_id, rules, rules_hash, 9 FROM programme_version", "checker_is_not_maker"},
		"PeriodsOverlap":                {"INSERT INTO settlement_period (due_at, ends_at, key, programme_id, starts_at) SELECT ends_at, ends_at, '2026-11-08', programme_id, ends_at - interval '1 day' FROM settlement_period WHERE key = '2026-W45'", "periods_do_not_overlap"},
		"APeriodGetsTwoRuns":            {"INSERT INTO settlement_run (created_by, currency, inputs_deadline_at, kind, max_attempts, period_ends_at, period_id, version_id) SELECT created_by, currency, inputs_deadline_at, kind, max_attempts, period_ends_at, period_id, version_id FROM settlement_run", "settlement_run_one_per_period"},
		"AnEndedRunChanges":             {"UPDATE settlement_run SET outcome = 'all_delivered' WHERE state = 'done'", "has ended and never changes"},
		"ARunIsDeleted":                 {"DELETE FROM settlement_run", "settlement runs are evidence"},
		"RunsAreEmptied":                {"TRUNCATE settlement_run CASCADE", "evidence|append-only"},
		"AnOutcomeWithoutCounts":        {"UPDATE settlement_run SET state = 'done', outcome = 'no_eligible', finished_at = now() WHERE state <> 'done'", "calculated_has_counts"},
		"NoEligibleWithoutInputs":       {"UPDATE settlement_run SET state = 'done', outcome = 'no_eligible', finished_at = now(), calculated_at = now(), eligible_minor = 0, num_eligible = 0, num_evaluated = 0, num_excluded = 0, credited_minor = 0, failed_minor = 0, num_credited = 0, num_failed = 0, num_pending = 0, num_withheld = 0 WHERE state <> 'done'", "calculated_has_counts"},
		"NoEligibleOnEarlyInputs":       {"UPDATE settlement_run SET state = 'done', outcome = 'no_eligible', finished_at = now(), calculated_at = now(), inputs_at = period_ends_at - interval '1 microsecond', eligible_minor = 0, num_eligible = 0, num_evaluated = 0, num_excluded = 0, credited_minor = 0, failed_minor = 0, num_credited = 0, num_failed = 0, num_pending = 0, num_withheld = 0 WHERE state <> 'done'", "calculated_on_proven_inputs"},
		"NoEligibleWithEligible":        {lie("no_eligible", 1, 1, 0), "outcome_is_true"},
		"AllDeliveredOfNothing":         {lie("all_delivered", 0, 0, 0), "outcome_is_true"},
		"AllDeliveredWithFailures":      {lie("all_delivered", 2, 1, 1), "outcome_is_true"},
		"PartialOfEverything":           {lie("partial", 1, 1, 0), "outcome_is_true"},
		"NoneDeliveredOfSome":           {lie("none_delivered", 2, 1, 1), "outcome_is_true"},
		"CountsThatDoNotAddUp":          {lie("partial", 3, 1, 1), "counts_add_up"},
		"AnUnknownOutcome":              {lie("fine", 1, 1, 0), "outcome_is_true"},
		"NoneDeliveredByAGoodJob":       {strings.Replace(lie("none_delivered", 1, 0, 1), "finished_at", "job_end = 'completed', finished_at", 1), "job_end_agrees_with_outcome"},
		"AnItemIsDeleted":               {"DELETE FROM settlement_item", "append-only"},
		"SomebodyIsEntitledTwice":       {"INSERT INTO settlement_item (amount_minor, basis_minor, capped_minor, currency, delivery, disposition, gross_minor, inputs, period_id, player_id, rate_ppm, run_id, tier_value) SELECT 1, 1, 1, item.currency, 'pending', 'eligible', 1, '{}', item.period_id, item.player_id, 1, run.id, 1 FROM settlement_item AS item CROSS JOIN settlement_run AS run WHERE run.state <> 'done'", "settlement_item_entitled_once"},
		"ACreditWithoutItsTime":         {"UPDATE settlement_item SET delivery = 'credited', failure_code = NULL, failure_class = NULL WHERE delivery = 'failed'", "credited_has_its_time"},
		"AFailureWithoutItsReason":      {"UPDATE settlement_item SET failure_code = NULL WHERE delivery = 'failed'", "failure_is_explained"},
		"AnExcludedItemWithoutReason":   {"UPDATE settlement_item SET disposition = 'excluded', delivery = NULL, credited_at = NULL, amount_minor = 0", "eligible_or_excluded"},
		"AnAttemptChanges":              {"UPDATE settlement_attempt SET result = 'credited'", "append-only"},
		"HistoryIsRewritten":            {"UPDATE settlement_event SET actor = 'nobody'", "append-only"},
		"ACreditedItemIsGivenUp":        {"UPDATE settlement_item SET voided_at = now() WHERE delivery = 'credited'", "void_was_not_credited"},
		"TheDatabaseRefusesSelfApprove": {"UPDATE settlement_run SET approved_at = now(), approved_by = created_by WHERE state <> 'done'", "checker_is_not_maker"},
	} {
		t.Run("RefusesThat"+name, func(t *testing.T) {
			t.Parallel()

			_, err := bundle.db.Pool.Exec(ctx, refused.statement)
			require.Error(t, err)
			require.Regexp(t, refused.text, err.Error())
		})
	}
	require.Positive(t, done)
}

// lie is a statement that ends the unfinished run with an outcome and counts of
// eligible, credited and failed items.
func lie(outcome string, eligible, credited, failed int) string {
	return strings.NewReplacer("$o", outcome, "$e", digit(eligible), "$c", digit(credited), "$f", digit(failed)).Replace(`
		UPDATE settlement_run SET state = 'done', outcome = '$o', calculated_at = now(), inputs_at = period_ends_at,
			eligible_minor = 1, num_eligible = $e, num_evaluated = $e, num_excluded = 0, credited_minor = 0, failed_minor = 0,
			num_credited = $c, num_failed = $f, num_pending = 0, num_withheld = 0, finished_at = now()
		WHERE state <> 'done'`)
}

func digit(n int) string { return string(rune('0' + n)) }
