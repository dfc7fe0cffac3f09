package freshness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
)

func TestNewProcess(t *testing.T) {
	t.Parallel()

	t.Run("ListsItsQueues", func(t *testing.T) {
		t.Parallel()

		process, err := freshness.NewProcess(freshness.ProcessConfig{Queues: []freshness.ProcessQueue{
			{MaxWorkers: 1, Name: "b", Timeout: time.Second},
			{MaxWorkers: 1, Name: "a", Timeout: time.Second},
		}})
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, process.QueueNames())
	})

	t.Run("RefusesQueuesWithoutBounds", func(t *testing.T) {
		t.Parallel()

		_, err := freshness.NewProcess(freshness.ProcessConfig{Queues: []freshness.ProcessQueue{
			{Name: "a", Timeout: time.Second},
			{MaxWorkers: 1, Name: "a", Timeout: time.Second},
		}})
		require.ErrorContains(t, err, "queue a: MaxWorkers and Timeout must be above 0, got 0 and 1s")
		require.ErrorContains(t, err, `got "a"`)
	})
}
