package natspublish_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

func TestPublisher_Publish_Pace(t *testing.T) {
	t.Parallel()

	t.Run("ManyKeysGoBothWaysOnceAndTheCheaperOneAfterwards", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		inBatches := make([]int, 12)
		for call := range inBatches {
			before := bundle.inBatches(ctx, t)
			events := make([]outbox.Event, 300)
			for i := range events {
				events[i] = event(fmt.Sprintf("call-%d-%d", call, i), 1)
			}
			mustPublish(ctx, t, bundle.publisher, events...)
			inBatches[call] = bundle.inBatches(ctx, t) - before
			require.Contains(t, []int{0, 300}, inBatches[call])
		}
		require.Equal(t, []int{300, 0}, inBatches[:2])
	})
}
