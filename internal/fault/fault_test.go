package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
)

func TestIs(t *testing.T) {
	t.Parallel()

	t.Run("FindsTheKindInTheChain", func(t *testing.T) {
		t.Parallel()
		cause := errors.New("out of range")
		err := fmt.Errorf("read line: %w", fault.Invalid("stake: %w", cause))
		require.True(t, fault.Is(err, fault.KindInvalid))
		require.False(t, fault.Is(err, fault.KindNotFound))
		require.ErrorIs(t, err, cause)
		require.EqualError(t, err, "read line: stake: out of range")
	})

	t.Run("KnowsEachKind", func(t *testing.T) {
		t.Parallel()
		require.True(t, fault.Is(fault.NotFound("run 1"), fault.KindNotFound))
		require.True(t, fault.Is(fault.NotReady("run 1"), fault.KindNotReady))
	})

	t.Run("IsFalseForWhatHasNone", func(t *testing.T) {
		t.Parallel()
		require.False(t, fault.Is(errors.New("broken"), fault.KindInvalid))
		require.False(t, fault.Is(nil, fault.KindInvalid))
	})
}
