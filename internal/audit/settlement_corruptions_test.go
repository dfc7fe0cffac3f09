package audit_test

import "strings"

// itemCorruptions make items that do not explain themselves.
func itemCorruptions() []corruption {
	item := func(name, set string) string {
		return "UPDATE settlement_item SET " + set + " WHERE id = {item " + name + "};"
	}
	rules := func(set string) string { return "UPDATE programme_version SET rules = rules || '" + set + "'" }
	basis := func(run, player string) []string {
		return []string{"audit_settlement_basis: run {run " + run + "}, item {item " + run + "/" + player + "}"}
	}
	amount := func(run, player string) []string {
		return []string{"audit_settlement_amount: run {run " + run + "}, item {item " + run + "/" + player + "}"}
	}
	reason := func(run, player string) []string {
		return []string{"audit_settlement_reason: run {run " + run + "}, item {item " + run + "/" + player + "}"}
	}
	once := "audit_settlement_entitled_once: weekly/2026-W52/"
	return []corruption{
		{
			"TwoClaimsToTheSame", `
			ALTER TABLE settlement_item DROP CONSTRAINT settlement_item_run_id_player_id_key;
			DROP INDEX settlement_item_entitled_once;` + item("delivering/bob", "player_id = {player alice}"),
			[]string{once + "alice/KRW"}, "2 eligible items for 1 adj",
		},
		{
			"TwoClaimsOfNobody", `
			ALTER TABLE settlement_item DROP CONSTRAINT settlement_item_run_id_player_id_key;
			DROP INDEX settlement_item_entitled_once;
			UPDATE settlement_item SET period_id = 9999, player_id = 9999 WHERE id IN ({item delivering/bob}, {item delivering/hank})`,
			[]string{
				"audit_settlement_entitled_once: 9999/9999/KRW",
				"audit_settlement_origin: run {run delivering}, item {item delivering/bob}", "audit_settlement_origin: run {run delivering}, item {item delivering/hank}",
			}, "2 eligible items for 1 adj; 2 undelivered items",
		},
		{
			"TwoUndeliveredAdjustments", `
			ALTER TABLE settlement_item DROP CONSTRAINT settlement_item_run_id_player_id_key;
			UPDATE settlement_run SET eligible_minor = eligible_minor - (SELECT amount_minor FROM settlement_item WHERE id = {item delivering/bob}), kind = 'adjustment' WHERE id = {run delivering};
			UPDATE settlement_item SET adj = 1, amount_minor = amount_minor - (SELECT amount_minor FROM settlement_item WHERE id = {item delivering/bob}), player_id = {player bob} WHERE id = {item delivering/hank}`,
			append(amount("delivering", "hank"), once+"bob/KRW"), "2 undelivered items",
		},

		{"ABasisThatIsAMillionthOff", item("all_delivered/alice", "basis_minor = basis_minor + 0.000001"), basis("all_delivered", "alice"), "basis is 40011.600001, its inputs make 40011600000"},
		{"AnotherStake", item("all_delivered/alice", `inputs = jsonb_set(inputs, '{categories,1,stake}', '"106"')`), basis("all_delivered", "alice"), "its inputs make 40011800000"},
		{"AnotherPayout", item("all_delivered/carol", `inputs = jsonb_set(inputs, '{categories,0,payout}', '"91"')`), basis("all_delivered", "carol"), "its inputs make -288450000"},
		{"OtherPromotions", item("all_delivered/alice", `inputs = jsonb_set(inputs, '{promotions}', '"8"')`), basis("all_delivered", "alice"), "its inputs make 40010600000"},
		{"InputsWithoutCategories", item("all_delivered/alice", "inputs = inputs - 'categories'"), basis("all_delivered", "alice"), "inputs lack amounts"},
		{"InputsWithCategoriesOfAnotherForm", item("all_delivered/alice", "inputs = jsonb_set(inputs, '{categories}', '{}')"), basis("all_delivered", "alice"), "inputs lack amounts"},
		{"InputsWithoutAPayout", item("all_delivered/alice", "inputs = inputs #- '{categories,2,payout}'"), basis("all_delivered", "alice"), "inputs lack amounts"},
		{"InputsWithoutPromotions", item("all_delivered/alice", "inputs = inputs - 'promotions'"), basis("all_delivered", "alice"), "inputs lack promotions"},
		{"InputsOfNoCategory", item("all_delivered/alice", "inputs = inputs #- '{categories,2,category}'"), basis("all_delivered", "alice"), "inputs lack amounts of categories"},
		{"InputsThatLackMore", item("all_delivered/alice", "inputs = inputs - 'categories' - 'promotions'"), basis("all_delivered", "alice"), "inputs lack amounts of categories, promotions"},
		{"OtherWeights", rules(`{"categories": {"live": 200001, "slots": 1000000}}`), []string{"audit_settlement_basis: *"}, "its inputs make 40011600103"},
		{"AnotherDefaultWeight", rules(`{"default_weight_ppm": 0}`), []string{"audit_settlement_basis: *"}, "its inputs make 40013600000"},
		{"PromotionsThatAreNotDeducted", rules(`{"less_promotions": false}`), []string{"audit_settlement_basis: *"}, "its inputs make 40018600000"},
		{"TermsOfAnUnknownBasis", rules(`{"basis": "loyalty"}`), []string{"audit_settlement_basis: *"}, "terms are a cashback of basis loyalty, which"},
		{"TermsOfABasisOfAnotherKind", rules(`{"basis": "stake"}`), []string{"audit_settlement_basis: *"}, "terms are a cashback of basis stake, which"},
		{"TermsWithoutABasis", rules(`{"basis": null}`), []string{"audit_settlement_basis: *"}, "terms are a cashback of basis none, which"},
		{"TermsOfAnUnknownKind", rules(`{"kind": "jackpot"}`), []string{"audit_settlement_basis: *", "audit_settlement_reason: *"}, "it should be unknown of such a kind"},

		{"AnotherTierValue", item("all_delivered/alice", "tier_value = 40012"), amount("all_delivered", "alice"), "tier value is 40012, its terms make 40011"},
		{"AnotherTier", item("all_delivered/alice", "tier_from = 100000"), amount("all_delivered", "alice"), "tier is 100000, its tier value reaches 1000"},
		{"ATierOfAWinner", item("all_delivered/carol", "tier_from = 1000"), amount("all_delivered", "carol"), "tier is 1000, its tier value reaches none"},
		{"AnotherRate", item("all_delivered/alice", "rate_ppm = 70000"), amount("all_delivered", "alice"), "rate is 70000, its tier makes 50000; gross is 2000, its basis and rate make 2800"},
		{"ARateOfAWinner", item("all_delivered/carol", "rate_ppm = 50000"), amount("all_delivered", "carol"), "rate is 50000, its tier makes 0"},
		{"AnotherGross", item("all_delivered/bob", "gross_minor = gross_minor - 1"), amount("all_delivered", "bob"), "gross is 34999, its basis and rate make 35000"},
		{"AnotherCapped", item("all_delivered/frank", "capped_minor = capped_minor - 1"), amount("all_delivered", "frank"), "capped is 2499, its gross and the cap make 2500"},
		{"AnotherCap", rules(`{"cap": 8999}`), amount("all_delivered", "bob"), "capped is 9000, its gross and the cap make 8999"},
		{
			"AnotherAmount", item("awaiting_approval/bob", "amount_minor = amount_minor - 1") + "UPDATE settlement_run SET eligible_minor = eligible_minor - 1 WHERE id = {run awaiting_approval}",
			amount("awaiting_approval", "bob"), "amount is 2349, what is capped makes 2350",
		},
		{
			"AnAmountOfTheExcluded", "ALTER TABLE settlement_item DROP CONSTRAINT eligible_or_excluded;" + item("all_delivered/frank", "amount_minor = 1"),
			amount("all_delivered", "frank"), "amount is 1, but it is excluded",
		},
		{"TermsOfAnUnknownShape", rules(`{"shape": "stairs"}`), []string{"audit_settlement_amount: *"}, "terms are of shape stairs, which"},
		{"TermsWithBandsOfAnotherValue", rules(`{"shape": "graduated", "tier_by": "vip"}`), []string{"audit_settlement_amount: *"}, "terms are of shape graduated by vip, which"},
		{"TermsWithAnotherShape", rules(`{"shape": "graduated"}`), []string{"audit_settlement_amount: *"}, "gross is 2000, its basis and bands make 1950"},
		{"TermsWithoutTiers", rules(`{"tiers": null}`), []string{"audit_settlement_amount: *"}, "tier is 1000, its tier value reaches none; rate is 50000, its tier makes 0"},
		{"TermsWithTiersByTheUnknown", rules(`{"tier_by": "age"}`), []string{"audit_settlement_amount: *"}, "tier value is 40011, its terms make none"},

		{"AClaimOfAClosedAccount", item("delivering/bob", `inputs = jsonb_set(inputs, '{status}', '"closed"')`), reason("delivering", "bob"), "reason is none, it should be closed"},
		{"AnExclusionWithAnotherStatus", item("all_delivered/frank", "reason = 'closed'"), reason("all_delivered", "frank"), "reason is closed, it should be self_excluded"},
		{"AWinnerWithAnotherReason", item("all_delivered/carol", "reason = 'no_tier'"), reason("all_delivered", "carol"), "reason is no_tier, it should be winner"},
		{"SomebodyBelowAllTiersWithAnotherReason", item("partial/hank", "reason = 'below_min'"), reason("partial", "hank"), "reason is below_min, it should be no_tier"},
		{"SomebodyBelowTheMinimumWithAnotherReason", item("partial/gina", "reason = 'winner'"), reason("partial", "gina"), "reason is winner, it should be below_min"},
		{"AnOverpaymentWithoutAnAdjustment", item("partial/gina", "reason = 'overpaid'"), reason("partial", "gina"), "reason is overpaid, it should be below_min"},
		{
			"AnOverpaymentOfAFirstClaim", item("awaiting_approval/bob", "amount_minor = 0, delivery = NULL, disposition = 'excluded', reason = 'overpaid'") +
				"UPDATE settlement_run SET eligible_minor = 0, num_eligible = 0, num_excluded = 1 WHERE id = {run awaiting_approval}",
			reason("awaiting_approval", "bob"), "reason is overpaid, it should be none",
		},
		{
			"AnAdjustmentRefusedForAnotherReason",
			item("awaiting_approval/bob", "adj = 1, amount_minor = 0, delivery = NULL, disposition = 'excluded', reason = 'winner'") +
				"UPDATE settlement_run SET eligible_minor = 0, kind = 'adjustment', num_eligible = 0, num_excluded = 1 WHERE id = {run awaiting_approval}",
			reason("awaiting_approval", "bob"), "reason is winner, it should be none",
		},
		{"AnOverspentBudget", rules(`{"budget": {"limit": 13049, "window": "monthly"}}`), []string{"audit_settlement_budget: *"}, "it brought what was paid in the month of its period to 13050, its budget allows 13049"},
		{"ABudgetOfAnUnknownWindow", rules(`{"budget": {"limit": 13050, "window": "yearly"}}`), []string{"audit_settlement_budget: *"}, "its terms have a budget whose window this audit does not know"},
		{"AReasonThatDoesNotApply", rules(`{"min_payout": 55}`), reason("partial", "gina"), "reason is below_min, it should be none"},
		{"InputsWithoutStatus", item("all_delivered/alice", "inputs = inputs - 'status'"), reason("all_delivered", "alice"), "it should be unknown without a status"},
	}
}

// creditCorruptions part items from the ledger, the wallets, the events and the
// attempts.
func creditCorruptions() []corruption {
	const (
		event   = "UPDATE outbox_event SET "
		told    = " WHERE payload ->> 'reference' = '{ref partial/alice}';"
		reward  = "audit_settlement_reference: {ref partial/alice}"
		telling = "audit_settlement_event: {ref partial/alice}"
		totals  = "audit_settlement_totals: KRW"
		entry   = "UPDATE ledger_entry SET "
		booked  = " WHERE txn_id = {txn partial/alice}"
		failed  = "settle/weekly/2026-W46/dave/KRW/0"

		// follow has the deliveries agree with the events again.
		follow = `;
			DELETE FROM outbox_delivery WHERE id NOT IN (SELECT id FROM outbox_event);
			UPDATE outbox_delivery AS delivery SET key = event.key, stream = event.stream FROM outbox_event AS event WHERE event.id = delivery.id;
			INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
			SELECT id, created_at, key, id, shard, stream FROM outbox_event WHERE id NOT IN (SELECT id FROM outbox_delivery)`
	)
	tried := func(run, player string) []string {
		return []string{"audit_settlement_attempt: run {run " + run + "}, item {item " + run + "/" + player + "}"}
	}
	wallet := func(player, change string) string {
		return "UPDATE wallet SET balance_minor = balance_minor " + change + " WHERE player_id = {player " + player + "};"
	}
	return []corruption{
		{
			"ACreditThatWentToSomebodyToo",
			entry + "amount_minor = amount_minor - 5" + booked + " AND account_id = {account promotion};" +
				"INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at) VALUES ({txn partial/alice}, {account bob}, 5, now());" + wallet("bob", "+ 5, version = version + 1"),
			[]string{totals, reward}, "promotions gave",
		},
		{
			"ACreditThatTheHousePaid", entry + "account_id = {account house}" + booked + " AND account_id = {account promotion}",
			[]string{totals, reward}, "0 from promotions",
		},
		{
			"ACreditThatNoWalletGot", entry + "account_id = {account house}" + booked + " AND account_id = {account alice};" +
				wallet("alice", "- (SELECT max(amount_minor) FROM ledger_entry WHERE txn_id = {txn partial/alice}), version = version - 1"),
			[]string{totals, reward}, "books 0 KRW for player none",
		},
		{
			"CreditsThatAreAllMissing", "UPDATE ledger_txn SET reference = 'x' || id WHERE reference LIKE 'settle/%'",
			[]string{totals, "audit_settlement_reference: *"}, "promotions gave 0, wallets received 0",
		},
		{
			"ASettlementWithoutEntries", "INSERT INTO ledger_txn (id, at, kind, reference) OVERRIDING SYSTEM VALUE VALUES (9999, now(), 'credit', 'settle/x')",
			[]string{"audit_ledger_balanced: ledger transaction 9999 (settle/x)", "audit_settlement_reference: settle/x"}, "has no credited item",
		},
		{
			"ASettlementOfUnknownAccounts", `
			INSERT INTO ledger_txn (id, at, kind, reference) OVERRIDING SYSTEM VALUE VALUES (9999, now(), 'credit', 'settle/x');
			INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at) VALUES (9999, 9998, -5, now()), (9999, 9999, 5, now())`,
			[]string{"audit_ledger_balanced: ledger transaction 9999 (settle/x)", "audit_settlement_reference: settle/x"}, "has no credited item",
		},
		{
			"ASettlementOfACurrencyWithoutItems",
			`INSERT INTO ledger_account (id, currency, kind) OVERRIDING SYSTEM VALUE VALUES (9998, 'USD', 'promotion'), (9999, 'USD', 'house');
			INSERT INTO ledger_txn (id, at, kind, reference) OVERRIDING SYSTEM VALUE VALUES (9999, now(), 'credit', 'settle/x');
			INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at) VALUES (9999, 9998, -5, now()), (9999, 9999, 5, now())`,
			[]string{"audit_settlement_totals: USD", "audit_settlement_reference: settle/x"}, "credited items are 0, promotions gave 5, wallets received 0",
		},
		{
			"ACreditFromAnotherCurrency", "INSERT INTO ledger_account (id, currency, kind) OVERRIDING SYSTEM VALUE VALUES (9999, 'EUR', 'promotion');" +
				entry + "account_id = 9999" + booked + " AND account_id = {account promotion}",
			[]string{"audit_ledger_balanced: ledger transaction {txn partial/alice} ({ref partial/alice})", totals, "audit_settlement_totals: EUR", reward}, "credited items are 0, promotions gave 2050, wallets received 0",
		},
		{
			"ACreditInAnotherCurrency",
			"INSERT INTO ledger_account (id, currency, kind, player_id) OVERRIDING SYSTEM VALUE VALUES (9998, 'USD', 'promotion', NULL), (9999, 'USD', 'player', {player alice});" +
				wallet("alice", "- (SELECT max(amount_minor) FROM ledger_entry WHERE txn_id = {txn partial/alice}), version = version - 1") +
				entry + "account_id = CASE WHEN amount_minor < 0 THEN 9998 ELSE 9999 END" + booked,
			[]string{"audit_wallet_balanced: account 9999", totals, "audit_settlement_totals: USD", reward}, "books 2050 USD for player alice",
		},
		{
			"ACreditThatCameAsMore", entry + "amount_minor = amount_minor + 1" + booked + " AND account_id = {account alice};" + wallet("alice", "+ 1"),
			[]string{"audit_ledger_balanced: ledger transaction {txn partial/alice} ({ref partial/alice})", totals, reward}, "books 2051 KRW",
		},
		{
			"ACreditWithMoreEntries", "INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at) VALUES ({txn partial/alice}, {account cash}, 5, now()), ({txn partial/alice}, {account house}, -5, now())",
			[]string{reward}, "with 4 entries",
		},
		{
			"ACreditUnderAnotherReference", "UPDATE ledger_txn SET reference = 'settle/x' WHERE id = {txn partial/alice}",
			[]string{reward, "audit_settlement_reference: settle/x"}, "credited it, but it is not booked",
		},
		{
			"ACreditThatIsNoneOfASettlement", "UPDATE ledger_txn SET reference = 'x' WHERE id = {txn partial/alice}",
			[]string{totals, reward}, "credited it, but it is not booked",
		},
		{
			"ACreditThatIsADeposit", "UPDATE ledger_txn SET kind = 'deposit' WHERE id = {txn partial/alice}",
			[]string{reward}, "is a deposit",
		},
		{
			"ACreditForAnotherPlayer",
			entry + "account_id = {account gina}" + booked + " AND account_id = {account alice};" +
				wallet("alice", "- (SELECT max(amount_minor) FROM ledger_entry WHERE txn_id = {txn partial/alice}), version = version - 1") +
				wallet("gina", "+ (SELECT max(amount_minor) FROM ledger_entry WHERE txn_id = {txn partial/alice}), version = version + 1"),
			[]string{reward}, "for player gina",
		},
		{
			"CreditsOfOtherAmounts",
			entry + "amount_minor = amount_minor + sign(amount_minor)" + booked + ";" + entry + "amount_minor = amount_minor - sign(amount_minor) WHERE txn_id = {txn all_delivered/alice}",
			[]string{reward, "audit_settlement_reference: {ref all_delivered/alice}"}, "credited 2050 KRW, ledger transaction",
		},
		{
			"ACreditOfAFailedItem", "INSERT INTO ledger_txn (id, at, kind, reference) OVERRIDING SYSTEM VALUE VALUES (9999, now(), 'credit', '" + failed + "');" +
				"INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at) VALUES (9999, {account promotion}, -5, now()), (9999, {account dave}, 5, now());" + wallet("dave", "+ 5, version = version + 1"),
			[]string{totals, "audit_settlement_reference: " + failed}, "has no credited item",
		},
		{
			"ACreditTwice", `
			ALTER TABLE settlement_item DROP CONSTRAINT settlement_item_run_id_player_id_key;
			DROP INDEX settlement_item_entitled_once;
			UPDATE settlement_item SET attempts = 1, credited_at = now(), delivery = 'credited', player_id = {player alice} WHERE id = {item delivering/bob};
			INSERT INTO settlement_attempt (item_id, run_id, attempt, job_id, result) VALUES ({item delivering/bob}, {run delivering}, 1, 1, 'credited')`,
			[]string{totals, "audit_settlement_entitled_once: weekly/2026-W52/alice/KRW", "audit_settlement_reference: {ref delivering/alice}", "audit_settlement_event: {ref delivering/alice}"}, "2 eligible items for 1 adj",
		},

		{
			"AnEventWithoutDelivery", "DELETE FROM outbox_delivery WHERE id = (SELECT id FROM outbox_event" + strings.TrimSuffix(told, ";") + ")",
			[]string{"audit_outbox_delivery: *"}, "has no delivery: nothing will ever publish it",
		},
		{
			"ADeliveryWithoutEvent", "INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream) VALUES (9999, now(), 'k', 9999, 0, 'wallet')",
			[]string{"audit_outbox_delivery: delivery 9999"}, "delivery of stream wallet has no event",
		},
		{
			"ADeliveryAtAnotherShard", "UPDATE outbox_delivery SET shard = 3 - shard WHERE id = (SELECT id FROM outbox_event" + strings.TrimSuffix(told, ";") + ")",
			[]string{"audit_outbox_delivery: *"}, "its delivery at shard",
		},
		{"ACreditWithoutEvent", "DELETE FROM outbox_event" + told + follow, []string{telling}, "credited it, but no event tells of it"},
		{"ACreditWithAnotherEvent", event + "type = 'wallet.deposited.v1'" + told, []string{telling}, "credited it, but no event tells of it"},
		{"ACreditWithAnEventOfAnotherStream", event + "stream = 'rolling'" + told + follow, []string{telling}, "credited it, but no event tells of it"},
		{
			"AnEventWithoutCredit", event + `payload = payload || '{"reference": "settle/x"}'` + told,
			[]string{telling, "audit_settlement_event: settle/x"}, "has no credited item",
		},
		{
			"AnEventOfAFailedItem", "INSERT INTO outbox_event (stream, shard, key, key_seq, type, payload) SELECT stream, shard, key, 99, type, payload || '{\"reference\": \"" + failed + "\"}' FROM outbox_event" + told + follow,
			[]string{"audit_settlement_event: " + failed}, "has no credited item",
		},
		{
			"TwoEventsOfACredit", "INSERT INTO outbox_event (stream, shard, key, key_seq, type, payload) SELECT stream, shard, key, 99, type, payload FROM outbox_event" + told + follow,
			[]string{telling}, "has 2 events",
		},
		{"AnEventOfAnotherAmount", event + `payload = payload || '{"amount": "1"}'` + told, []string{telling}, "got 1 KRW"},
		{"AnEventWithoutAmount", event + "payload = payload - 'amount'" + told, []string{telling}, "got nothing KRW"},
		{"AnEventOfAnotherCurrency", event + `payload = payload || '{"currency": "USD"}'` + told, []string{telling}, "USD"},
		{"AnEventOfAnotherPlayer", event + `payload = payload || '{"player": "bob"}'` + told, []string{telling}, "tells that player bob got"},
		{"AnEventUnderAnotherKey", event + "key = 'bob/KRW', key_seq = 99" + told + follow, []string{telling}, "of key bob/KRW tells"},

		{"AnotherNumberOfAttempts", "UPDATE settlement_item SET attempts = 2 WHERE id = {item partial/alice}", tried("partial", "alice"), "attempts is 2, 1 are recorded"},
		{"ALostAttempt", "DELETE FROM settlement_attempt WHERE item_id = {item partial/dave}", tried("partial", "dave"), "attempts is 1, 0 are recorded"},
		{"ACreditThatNoAttemptGave", "UPDATE settlement_attempt SET result = 'failed' WHERE item_id = {item partial/alice}", tried("partial", "alice"), "delivery is credited, 0 attempts credited it"},
		{
			"ACreditThatTwoAttemptsGave", "INSERT INTO settlement_attempt (item_id, run_id, attempt, job_id, result) VALUES ({item partial/alice}, {run partial}, 2, 1, 'credited'); UPDATE settlement_item SET attempts = 2 WHERE id = {item partial/alice}",
			tried("partial", "alice"), "delivery is credited, 2 attempts credited it",
		},
		{"AFailedItemThatAnAttemptCredited", "UPDATE settlement_attempt SET result = 'credited' WHERE item_id = {item partial/dave}", tried("partial", "dave"), "delivery is failed, 1 attempts credited it"},
		{
			"AnAttemptOfNoItem", "INSERT INTO settlement_attempt (item_id, run_id, attempt, job_id, result) VALUES (9999, 1, 1, 1, 'failed')",
			[]string{"audit_settlement_attempt: item 9999"}, "has attempts, but does not exist",
		},
	}
}

// runCorruptions make runs that say something else than their items.
func runCorruptions() []corruption {
	set := func(run, set string) string {
		return "UPDATE settlement_run SET " + set + " WHERE id = {run " + run + "};"
	}
	found := func(run string) []string { return []string{"audit_settlement_outcome: run {run " + run + "}"} }
	without := func(constraint string) string {
		return "ALTER TABLE settlement_run DROP CONSTRAINT " + constraint + ";"
	}
	outcome := func(name, run, said string) corruption {
		return corruption{
			name, without("outcome_is_true") + without("job_end_agrees_with_outcome") + set(run, "job_end = NULL, outcome = '"+said+"'") + "DELETE FROM river_job",
			found(run), "state is done and outcome " + said + ", its items make it " + run,
		}
	}
	return []corruption{
		{"MoreEvaluated", set("partial", "num_evaluated = num_evaluated + 1, num_excluded = num_excluded + 1"), found("partial"), "evaluated, eligible, excluded, eligible amount are (6,3,3,"},
		{"MoreEligible", set("delivering", "num_evaluated = num_evaluated + 1, num_eligible = num_eligible + 1"), found("delivering"), "are (4,4,0,"},
		{"AnotherEligibleAmount", set("awaiting_approval", "eligible_minor = 1"), found("awaiting_approval"), "are (1,1,0,1), of its items (1,1,0,2350)"},
		{"FewerExcluded", without("counts_add_up") + set("no_eligible", "num_excluded = 0"), found("no_eligible"), "are (1,0,0,0), of its items (1,0,1,0)"},
		{"MoreCredited", set("partial", "num_credited = 2, num_withheld = 0"), found("partial"), "credited, its amount, failed, its amount, withheld, pending are (2,"},
		{"MoreFailed", set("partial", "num_failed = 2, num_withheld = 0"), found("partial"), ",2,2100,0,0), of its items (1,2050,1,2100,1,0)"},
		{"MorePending", without("counts_add_up") + without("outcome_is_true") + set("partial", "num_pending = 1"), found("partial"), ",1,1), of its items"},
		{"AnotherCreditedAmount", set("partial", "credited_minor = credited_minor - 1"), found("partial"), "are (1,2049,"},
		{"AnotherFailedAmount", set("partial", "failed_minor = 0"), found("partial"), "are (1,2050,1,0,"},
		{"ItemsThatAreGone", "DELETE FROM settlement_item WHERE run_id = {run no_eligible}", found("no_eligible"), "are (1,0,1,0), of its items (0,0,0,0)"},
		{
			"ACalculationOfNoPeriod", "UPDATE settlement_run SET period_id = 9999 WHERE id = {run awaiting_approval}; UPDATE settlement_item SET period_id = 9999 WHERE id = {item awaiting_approval/bob}",
			append(found("awaiting_approval"), "audit_settlement_origin: run {run awaiting_approval}"), "no watermark proves",
		},
		{
			"AnItemThatIsStillPending", "UPDATE settlement_item SET delivery = 'pending', failure_class = NULL, failure_code = NULL WHERE id = {item partial/dave}",
			found("partial"), "is done with 1 pending items",
		},
		outcome("AnOutcomeThatClaimsAll", "partial", "all_delivered"),
		outcome("AnOutcomeThatClaimsAPart", "all_delivered", "partial"),
		outcome("AnOutcomeThatClaimsNobodyWasEligible", "none_delivered", "no_eligible"),
		outcome("AnOutcomeThatClaimsAWithholding", "none_delivered", "all_withheld"),
		outcome("AnOutcomeThatClaimsADelivery", "no_eligible", "all_delivered"),
		outcome("AnOutcomeThatClaimsAFailure", "all_withheld", "none_delivered"),
		{"NoOutcome", without("outcome_when_done") + set("partial", "outcome = NULL"), found("partial"), "state is done and outcome none, its items make it partial"},
		{"AnOutcomeBeforeTheEnd", without("outcome_when_done") + without("outcome_is_true") + set("delivering", "outcome = 'partial'"), found("delivering"), "state is delivering and outcome partial, its items make it none"},
		{"NobodyEligibleByEarlyInputs", without("calculated_on_proven_inputs") + set("no_eligible", "inputs_at = period_ends_at - interval '1 microsecond'"), found("no_eligible"), "no watermark proves"},
		{"NobodyEligibleByNoInputs", without("calculated_has_counts") + set("no_eligible", "inputs_at = NULL"), found("no_eligible"), "no watermark proves"},
		{
			"APeriodThatEndsLater", "ALTER TABLE settlement_period DROP CONSTRAINT periods_do_not_overlap; UPDATE settlement_period SET due_at = 'infinity', ends_at = ends_at + interval '15 minutes' WHERE key = '2026-W52';", found("delivering"), "no watermark proves",
		},
		{"CreditsBeforeTheApproval", set("delivering", "state = 'approved'"), found("delivering"), "1 items are credited, but its delivery never began"},
		{"CreditsOfADeliveryThatNeverBegan", set("partial", "started_at = NULL"), found("partial"), "1 items are credited, but its delivery never began"},
		{"AClaimOnAnAbortedRun", "UPDATE settlement_item SET voided_at = NULL WHERE id = {item aborted/hank}", found("aborted"), "was aborted before its delivery, but 1 items are not voided"},
		{"AVoidedItemOfADeliveredRun", "UPDATE settlement_item SET voided_at = now() WHERE id = {item partial/dave}", found("partial"), "1 items are voided, but it is done and 1 are credited"},
		{
			"AVoidedItemOfARunThatPaid", set("delivering", "abort_reason = 'cancelled', finished_at = now(), state = 'aborted'") + "UPDATE settlement_item SET voided_at = now() WHERE id = {item delivering/bob}",
			found("delivering"), "1 items are voided, but it is aborted and 1 are credited",
		},
	}
}
