package programme_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/money"
	"truegreen/internal/programme"
)

func TestEntitlement_Less(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		name    string
		owed    money.Minor
		reason  programme.Reason
		earlier programme.Earlier
		amount  money.Minor
		because programme.Reason
	}{
		{"NothingBefore", 100, "", programme.Earlier{}, 100, ""},
		{"MoreThanBefore", 100, "", programme.Earlier{Entitled: 99}, 1, ""},
		{"AsMuchAsBefore", 100, "", programme.Earlier{Entitled: 100}, 0, programme.ReasonOverpaid},
		{"LessThanBefore", 100, "", programme.Earlier{Entitled: 101}, 0, programme.ReasonOverpaid},
		{"MoreWhileTheFirstIsOnItsWay", 100, "", programme.Earlier{Entitled: 60, Undelivered: true}, 0, programme.ReasonEarlierUndelivered},
		{"LessWhileTheFirstIsOnItsWay", 100, "", programme.Earlier{Entitled: 160, Undelivered: true}, 0, programme.ReasonOverpaid},
		{"ExcludedAnyway", 0, programme.ReasonWinner, programme.Earlier{Entitled: 60, Undelivered: true}, 0, programme.ReasonWinner},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			owed := programme.Entitlement{Amount: tc.owed, Capped: 100, Reason: tc.reason}.Less(tc.earlier)
			require.Equal(t, tc.amount, owed.Amount)
			require.Equal(t, tc.because, owed.Reason)
			require.Equal(t, tc.earlier.Entitled, owed.Before)
			require.Equal(t, money.Minor(100), owed.Capped)
		})
	}
}
