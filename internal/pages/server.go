package pages

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// Config configures a Server. Redis and State are required.
type Config struct {
	Addr string // host:port to listen on; port 0 is any free one

	// Ports is how many ports are tried, from that of Addr on, until one is free: 1 if zero.
	Ports int

	Password settings.Secret // for HTTP Basic authentication, with any user name; empty: none
	Token    settings.Secret // for a bearer token; empty: none
	Hosts    []string        // names under which the server is reached, beside those of loopback

	ShowAddresses bool // in full
	AllowWrite    bool // in /monitor/

	// Redis is a client that answers soon or fails (redisconn.ConnectStatus). The server does
	// not close it.
	Redis redis.UniversalClient

	State   *State
	Held    func() map[string]error // tasks.Worker.Held; nil: nothing ever is
	Ending  <-chan struct{}         // closed when the worker takes nothing new any more; nil: never
	Queues  map[string]int          // that the worker takes from, and their weights
	Metrics http.Handler            // of /metrics; nil: there is none
	Version string
	Logger  *zerolog.Logger // no logs if nil
}

func (c Config) view() redact.View { return redact.View{Addresses: c.ShowAddresses} }

// ErrUnprotected is the error when other machines could see the pages without a password.
var ErrUnprotected = errors.New("pages: beyond this machine a password or a token is required")

// Server is a worker's HTTP server. What goes wrong in it is logged and never ends the worker.
type Server struct {
	cfg      Config
	guard    guard
	queues   cached[[]queuestats.Queue]
	paused   cached[[]tasks.Pause]
	write    cached[struct{}] // whether Redis takes what is written
	http     *http.Server
	listener net.Listener
	serving  sync.WaitGroup
}

// The time-outs and limits of the server. Nothing that it answers takes long, and nothing that
// it is asked is big.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	maxBody       = 1 << 20 // a list of task IDs
	closeTimeout  = 2 * time.Second
)

// Start starts a server. The error is ErrUnprotected if the address is one that other
// machines can reach and there is neither password nor token, and a syscall.EADDRINUSE if all
// ports are taken.
func Start(cfg Config) (*Server, error) {
	if cfg.Held == nil {
		cfg.Held = func() map[string]error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = new(zerolog.Nop())
	}
	listener, err := listen(cfg.Addr, max(cfg.Ports, 1))
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	s := &Server{cfg: cfg, listener: listener}
	tcp, ok := listener.Addr().(*net.TCPAddr)
	s.guard = newGuard(cfg, ok && tcp.IP.IsLoopback())
	if s.guard.open() && !s.guard.loopback {
		return nil, errors.Join(ErrUnprotected, listener.Close())
	}
	s.queues.read = func(ctx context.Context) ([]queuestats.Queue, error) { return queuestats.Read(ctx, cfg.Redis) }
	s.paused.read = tasks.NewPauses(cfg.Redis).List
	s.write.read = func(ctx context.Context) (struct{}, error) { return struct{}{}, redisconn.TryWrite(ctx, cfg.Redis) }
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(warner{cfg.Logger}, "", 0),
	}
	s.serving.Go(func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			cfg.Logger.Error().Err(err).Msg("the pages are gone; the mail goes on")
		}
	})
	return s, nil
}

// listen takes the first port that is free.
func listen(addr string, ports int) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("%s: the port is not a number", addr)
	}
	for i := range ports {
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(first+i))); err == nil { //nolint:noctx // it does not block
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, err
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is the address of the page, for a person at this machine.
func (s *Server) URL() string {
	host, port, _ := net.SplitHostPort(s.Addr())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}

// Close ends the server and its connections.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	s.serving.Wait()
	return err
}

// ending says that the worker takes nothing new any more.
func (s *Server) ending() bool {
	select {
	case <-s.cfg.Ending: // a nil channel is never ready
		return true
	default:
		return false
	}
}

// handler is everything that the server answers.
func (s *Server) handler() http.Handler {
	inside := http.NewServeMux()
	inside.HandleFunc("GET /{$}", overview())
	inside.HandleFunc("GET /status.json", s.status)
	for _, source := range []letterSource{deadSource(tasks.NewDeadLetters(s.cfg.Redis)), retrySource(tasks.NewRetries(s.cfg.Redis))} {
		l := &letters{source: source, view: s.cfg.view(), mayWrite: s.cfg.AllowWrite, log: s.cfg.Logger, known: s.names}
		l.register(inside)
	}
	s.pausesPage(inside)
	inside.Handle(monitorPath, newMonitor(s.cfg.Redis, s.cfg.view(), s.cfg.AllowWrite))
	if s.cfg.Metrics != nil {
		inside.Handle("GET /metrics", s.cfg.Metrics)
	}
	find := newHistory(s)
	inside.Handle("GET "+historyPath, find)
	protected := http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(inside, maxBody))
	if !s.cfg.AllowWrite {
		protected = readOnly(protected)
	}
	all := http.NewServeMux()
	all.HandleFunc("GET /healthz", s.health)
	all.HandleFunc("GET /readyz", s.ready)
	asks := http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(find, maxBody))
	all.Handle("POST "+historyPath, s.guard.protect(asks)) // it changes nothing
	all.Handle("/", s.guard.protect(protected))
	return harden(all)
}

// names are the queues, as producers call them, and the mailers that there are, to choose from.
func (s *Server) names() (queues, mailers []string) {
	queues, mailers = slices.Collect(maps.Keys(s.cfg.Queues)), append(s.cfg.State.names(), settings.DefaultMailer)
	all, _ := s.queues.get(context.Background()) // as they were last seen, if Redis does not answer
	for _, q := range all {
		name := wire.ParseQueueName(q.Name)
		queues = append(queues, name.Queue)
		if name.Mailer != "" {
			mailers = append(mailers, name.Mailer)
		}
	}
	slices.Sort(queues)
	slices.Sort(mailers)
	return slices.Compact(queues), slices.Compact(mailers)
}

// warner logs what net/http has to say, such as that a handler panicked.
type warner struct{ log *zerolog.Logger }

func (w warner) Write(p []byte) (int, error) {
	w.log.Warn().Msg(strings.TrimSpace(string(p)))
	return len(p), nil
}
