package natspublish_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// TestPublisher_Publish_LostBatches breaks connections, and time, at each place
// where it matters.
func TestPublisher_Publish_LostBatches(t *testing.T) {
	t.Parallel()

	t.Run("AreNotBegunWhenTheAnswerWouldComeTooLate", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		slow := startProxy(t, bundle.server.URL(), nil)
		publisher := connect(t, slow.url)
		slow.delay.Store(int64(ackTimeout * 6 / 10))
		outcomes := publishBriefly(ctx, publisher, freshKeys(300)...)
		require.Equal(t, map[outbox.Class]int{outbox.ClassNotSent: 300}, classes(outcomes))
		require.Empty(t, bundle.messages(ctx, t))
	})

	t.Run("BeforeTheCommitLeaveNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		proxy := startProxy(t, bundle.server.URL(), func(p *proxy) { p.cutBefore = "Nats-Batch-Commit" })
		publisher := connect(t, proxy.url)
		// The client has written the commit, and cannot know that it got lost.
		outcomes := publish(ctx, publisher, freshKeys(300)...)
		require.Equal(t, map[outbox.Class]int{outbox.ClassAmbiguous: 300}, classes(outcomes))
		require.Empty(t, bundle.messages(ctx, t))
	})

	t.Run("AfterTheCommitAreAmbiguousAndStored", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		proxy := startProxy(t, bundle.server.URL(), nil)
		publisher := connect(t, proxy.url)
		mustPublish(ctx, t, publisher, many(300)...) // now batches are known to be taken
		proxy.mute()
		result := make(chan []outbox.Outcome, 1)
		events := chain(300)
		go func() { result <- publish(ctx, publisher, events...) }()
		require.Eventually(t, func() bool { return bundle.numMessages(ctx) == 600 }, ackTimeout, interval)
		proxy.cut()
		outcomes := <-result
		require.Equal(t, map[outbox.Class]int{outbox.ClassAmbiguous: 300}, classes(outcomes))
		require.ErrorContains(t, outcomes[0].Err, "connection broke")
	})

	t.Run("AreLeftOutWhileTheConnectionIsGoneBeforeTheCommit", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		publisher := connect(t, bundle.server.URL())
		mustPublish(ctx, t, publisher, many(300)...)
		bundle.server.Stop()
		require.Eventually(t, func() bool {
			return classes(publish(ctx, publisher, freshKeys(300)...))[outbox.ClassInfrastructure] == 300
		}, deadline, interval)
	})
}
