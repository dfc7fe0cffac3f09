package money_test

import (
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/money"
)

func TestMinor_AddAndSub(t *testing.T) {
	t.Parallel()

	t.Run("AgreeWithUnboundedNumbersOrSayThatTheyCannot", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			edges := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64}))
			a, b := edges.Draw(t, "a"), edges.Draw(t, "b")

			sum, err := money.Minor(a).Add(money.Minor(b))
			requireExact(t, new(big.Int).Add(big.NewInt(a), big.NewInt(b)), sum, err)

			difference, err := money.Minor(a).Sub(money.Minor(b))
			requireExact(t, new(big.Int).Sub(big.NewInt(a), big.NewInt(b)), difference, err)
		})
	})
}

func requireExact(t *rapid.T, want *big.Int, got money.Minor, err error) {
	if want.IsInt64() {
		require.NoError(t, err)
		require.Equal(t, want.Int64(), int64(got))
		return
	}
	require.ErrorIs(t, err, money.ErrOverflow)
}

func TestMinor_Abs(t *testing.T) {
	t.Parallel()

	for given, want := range map[money.Minor]money.Minor{
		-5: 5, 0: 0, 5: 5, math.MinInt64: math.MaxInt64, math.MinInt64 + 1: math.MaxInt64,
	} {
		require.Equal(t, want, given.Abs())
	}
}

func TestRatePPM_Valid(t *testing.T) {
	t.Parallel()

	require.True(t, money.RatePPM(0).Valid())
	require.True(t, money.MaxRatePPM.Valid())
	require.False(t, money.RatePPM(-1).Valid())
	require.False(t, (money.MaxRatePPM + 1).Valid())
}
