package appconfig_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/appconfig"
)

const secretURL = "postgres://green:s3cret@db:5432/truegreen?sslmode=disable"

func TestSecret(t *testing.T) {
	t.Parallel()

	t.Run("IsNeverPrinted", func(t *testing.T) {
		t.Parallel()

		config, err := appconfig.Load(nil, []string{
			"DATABASE_URL=" + secretURL,
			"TRUEGREEN_BROKER=nats://u:s3cret@one:4222,nats://u:s3cret@two:4222",
			"TRUEGREEN_TOKEN=s3cret-s3cret-s3cret",
		})
		require.NoError(t, err)
		var logged strings.Builder
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("settings", "config", config, "url", config.DatabaseURL)
		marshalled, err := json.Marshal(config)
		require.NoError(t, err)
		for _, text := range []string{
			logged.String(), string(marshalled),
			fmt.Sprintf("%v", config), fmt.Sprintf("%+v", config), fmt.Sprintf("%#v", config), fmt.Sprint(config.Token),
		} {
			require.NotContains(t, text, "s3cret")
		}
		require.Equal(t, "postgres://db:5432/truegreen", config.DatabaseURL.String())
		require.Equal(t, "nats://one:4222,nats://two:4222", config.BrokerURL.String())
		for _, secret := range []appconfig.Secret{
			"host=db password=s3cret",
			"postgres://green:12/s3cret@db:5432/truegreen",
			"nats://green:12,s3cret@one:4222",
		} {
			require.Equal(t, "[hidden]", secret.String())
		}
	})

	t.Run("IsNotInErrors", func(t *testing.T) {
		t.Parallel()

		_, err := appconfig.Load(nil, []string{
			"DATABASE_URL=postgres://green:s3/cret@db:5432/truegreen",
			"TRUEGREEN_BROKER=nats://u:s3cret@host:port",
			"TRUEGREEN_TOKEN=s3cret",
		})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "s3")
		require.NotContains(t, err.Error(), "cret@")
		require.Contains(t, err.Error(), "percent-encoded")
	})
}
