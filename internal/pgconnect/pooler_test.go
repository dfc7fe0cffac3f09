package pgconnect_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/pgconnect"
)

// startupParameters are those that PgBouncer takes by default.
var startupParameters = []string{
	"application_name", "client_encoding", "database", "datestyle", "standard_conforming_strings", "timezone", "user",
}

// pooler stands between clients and a server as PgBouncer does. Each client has a
// server connection of its own, or one for each transaction.
type pooler struct {
	byTransaction bool
	delay         time.Duration // of each answer, as on a long line
	isFull        string        // "client": a second one is refused, "server": a second one waits
	isSilent      atomic.Bool   // answers no statement
	refusal       string        // of every statement, as where the server is down
	roundRobin    bool          // of the idle connections, take the one that was used longest ago
	server        string
	t             *testing.T

	numRoundTrips atomic.Int32 // of statements

	mu         sync.Mutex
	idle       []*pgconn.HijackedConn
	numClients int
	numServers int // in use
}

// admit counts one more of num, unless the pooler is full.
func (p *pooler) admit(num *int, full string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isFull == full && *num > 0 {
		return false
	}
	*num++
	return true
}

func (p *pooler) leave(num *int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*num--
}

// startPooler returns the URL that leads through the pooler.
func startPooler(ctx context.Context, t *testing.T, p *pooler) string {
	t.Helper()
	p.server, p.t = dbtest.Server(ctx, t), t
	config, err := pgconn.ParseConfig(p.server)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			clients.Go(func() {
				defer func() { _ = conn.Close() }()
				p.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		clients.Wait()
		for _, server := range p.idle {
			_ = server.Conn.Close()
		}
	})
	return "postgres://anybody@" + listener.Addr().String() + "/" + config.Database + "?sslmode=disable"
}

// serve answers one client until it leaves.
func (p *pooler) serve(conn net.Conn) {
	client := pgproto3.NewBackend(conn, conn)
	first, err := client.ReceiveStartupMessage()
	if err != nil {
		return
	}
	startup, ok := first.(*pgproto3.StartupMessage)
	if !ok {
		return // a cancel request
	}
	for name := range startup.Parameters {
		if !slices.Contains(startupParameters, strings.ToLower(name)) {
			client.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: " + name})
			_ = client.Flush()
			return
		}
	}
	if !p.admit(&p.numClients, "client") {
		client.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "no more connections allowed (max_client_conn)"})
		_ = client.Flush()
		return
	}
	defer p.leave(&p.numClients)
	client.Send(&pgproto3.AuthenticationOk{})
	client.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	client.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	client.Send(&pgproto3.BackendKeyData{ProcessID: 4711, SecretKey: []byte{1, 2, 3, 4}})
	client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if client.Flush() != nil {
		return
	}

	var server *pgconn.HijackedConn
	defer func() {
		if server != nil {
			_ = server.Conn.Close()
			p.leave(&p.numServers)
		}
	}()
	for {
		message, err := client.Receive()
		if err != nil {
			return
		}
		if _, ends := message.(*pgproto3.Terminate); ends {
			return
		}
		if p.isSilent.Load() {
			continue
		}
		if p.refusal != "" {
			client.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: p.refusal})
			_ = client.Flush()
			return
		}
		if server == nil {
			if !p.admit(&p.numServers, "server") {
				continue
			}
			if server = p.take(); server == nil {
				return
			}
		}
		server.Frontend.Send(message)
		switch message.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
			p.numRoundTrips.Add(1)
			<-time.After(p.delay)
			status, err := relay(client, server)
			if err != nil {
				return
			}
			if p.byTransaction && status == 'I' {
				p.give(server)
				p.leave(&p.numServers)
				server = nil
			}
		}
	}
}

// relay passes on what the server answers, until it is ready for more.
func relay(client *pgproto3.Backend, server *pgconn.HijackedConn) (status byte, err error) {
	if err := server.Frontend.Flush(); err != nil {
		return 0, err
	}
	for {
		answer, err := server.Frontend.Receive()
		if err != nil {
			return 0, err
		}
		client.Send(answer)
		if ready, ok := answer.(*pgproto3.ReadyForQuery); ok {
			return ready.TxStatus, client.Flush()
		}
	}
}

func (p *pooler) take() *pgconn.HijackedConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if num := len(p.idle); num > 0 {
		at := num - 1
		if p.roundRobin {
			at = 0
		}
		server := p.idle[at]
		p.idle = slices.Delete(p.idle, at, at+1)
		return server
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, p.server)
	if err != nil {
		p.t.Error(err)
		return nil
	}
	server, err := conn.Hijack()
	if err != nil {
		p.t.Error(err)
		return nil
	}
	return server
}

func (p *pooler) give(server *pgconn.HijackedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, server)
}

func TestDatabase_Pooler(t *testing.T) {
	t.Parallel()

	t.Run("BySessionWorksInEveryWay", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		database := parse(t, startPooler(ctx, t, &pooler{}), "lock_timeout=7s", "options=-c%20search_path%3Dours", "application_name=mine")
		require.NoError(t, database.Check(ctx))
		require.NoError(t, database.CheckWrites(ctx))
		options := pgconnect.Options{Defaults: map[string]string{"jit": "off"}, Fixed: map[string]string{"statement_timeout": "3s"}, Name: "theirs"}
		for setting, want := range map[string]string{"jit": "off", "lock_timeout": "7s", "search_path": "ours", "statement_timeout": "3s", "row_security": "off"} {
			require.Equal(t, []string{want, want, want}, show(ctx, t, database, options, setting), setting)
		}
	})

	t.Run("ThatFallsSilentKeepsNoPlaceOfAPool", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		silent := &pooler{}
		silent.isSilent.Store(true)
		pool, err := parse(t, startPooler(ctx, t, silent), "connect_timeout=1").Pool(ctx, pgconnect.Options{MaxConns: 1})
		require.NoError(t, err)
		defer pool.Close()
		require.Error(t, pool.Ping(ctx))
		silent.isSilent.Store(false)
		require.NoError(t, pool.Ping(ctx))
	})

	t.Run("FarAwayIsNotRefused", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		require.NoError(t, parse(t, startPooler(ctx, t, &pooler{delay: 700 * time.Millisecond})).Check(ctx))
	})

	t.Run("IsAskedOnceForEachRoundTrip", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		asked := &pooler{}
		require.NoError(t, parse(t, startPooler(ctx, t, asked)).Check(ctx))
		require.LessOrEqual(t, asked.numRoundTrips.Load(), int32(2+2*8+3), "the first questions, the rounds, and settings of one connection")
	})

	for _, full := range []string{"client", "server"} {
		t.Run("WithRoomForOneIsNotRefused/"+full, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			require.NoError(t, parse(t, startPooler(ctx, t, &pooler{isFull: full})).Check(ctx))
		})
	}

	for name, tc := range map[string]struct {
		isPooling bool
		refusal   string
	}{
		"WithoutAServerIsNotCalledWronglySetUp": {refusal: "server login has been failing, cached error: connect failed (server_login_retry)"},
		"WithoutRoomIsNotCalledWronglySetUp":    {refusal: "query_wait_timeout"},
		"ByStatementIsRefused":                  {isPooling: true, refusal: "transaction blocks not allowed in statement pooling mode"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			err := parse(t, startPooler(ctx, t, &pooler{refusal: tc.refusal})).Check(ctx)
			if tc.isPooling {
				require.ErrorIs(t, err, pgconnect.ErrPooling)
				return
			}
			require.NotErrorIs(t, err, pgconnect.ErrPooling)
			require.ErrorContains(t, err, tc.refusal)
		})
	}

	for name, tc := range map[string]struct {
		numIdle int // that others have left
		pooler  *pooler
	}{
		"ByTransactionIsRefused":           {pooler: &pooler{byTransaction: true}},
		"ByTransactionWithOthersIsRefused": {numIdle: 5, pooler: &pooler{byTransaction: true}},
		"ByTransactionInTurnsIsRefused":    {numIdle: 5, pooler: &pooler{byTransaction: true, roundRobin: true}},
		"ByTransactionInTwoTurnsIsRefused": {numIdle: 2, pooler: &pooler{byTransaction: true, roundRobin: true}},
		"ByTransactionFarAwayIsRefused":    {numIdle: 2, pooler: &pooler{byTransaction: true, roundRobin: true, delay: 700 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			url := startPooler(ctx, t, tc.pooler)
			var others []*pgconn.HijackedConn
			for range tc.numIdle {
				others = append(others, tc.pooler.take())
			}
			for _, server := range others {
				tc.pooler.give(server)
			}
			require.ErrorIs(t, parse(t, url).Check(ctx), pgconnect.ErrPooling)
		})
	}
}
