package natspublish_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

func TestPublisher_Publish_Overtaken(t *testing.T) {
	t.Parallel()
	old := startOldServer(t)
	old.ignored = map[string]bool{"b": true, "d": true}
	publisher := connect(t, old.url)
	outcomes := publishBriefly(t.Context(), publisher, event("a", 1), event("b", 1), event("c", 1), event("d", 1))
	require.Equal(t, map[outbox.Class]int{outbox.ClassAcknowledged: 2, outbox.ClassAmbiguous: 2}, classes(outcomes))
	require.True(t, outcomes[1].Overtaken, "c was sent after it, and acknowledged")
	require.False(t, outcomes[3].Overtaken, "nothing was sent after it")
}

func TestPublisher_Publish_Window(t *testing.T) {
	t.Parallel()

	t.Run("OfEventsThatAreIgnoredLetsOthersPastThemInTheEnd", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		old := startOldServer(t)
		old.ignored = make(map[string]bool)
		events := freshKeys(80)
		for _, event := range events[:70] {
			old.ignored[event.Key] = true
		}
		proxy := startProxy(t, old.url, nil)
		publisher := connect(t, proxy.url)
		var seen []string
		for range 5 {
			got := classes(publishWithin(ctx, publisher, time.Second, maybeSent(events)...))
			seen = append(seen, fmt.Sprintf("%d of %d", got[outbox.ClassAcknowledged], got[outbox.ClassAcknowledged]+got[outbox.ClassAmbiguous]))
		}
		require.Equal(t, []string{"0 of 64", "0 of 32", "0 of 16", "0 of 8", "10 of 80"}, seen)
	})

	t.Run("GrowsWhileAnswersAreQuick", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		proxy := startProxy(t, bundle.server.URL(), nil)
		publisher := connect(t, proxy.url)
		mustPublish(ctx, t, publisher, maybeSent(freshKeys(500))...)
		proxy.mute()
		got := classes(publishWithin(ctx, publisher, time.Second, maybeSent(freshKeys(500))...))
		require.Greater(t, got[outbox.ClassAmbiguous], 64)
	})
}
