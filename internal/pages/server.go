package pages

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// Server is a worker's HTTP server. What goes wrong in it is logged and never ends the worker.
type Server struct {
	*vitals

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
	tcp, ok := listener.Addr().(*net.TCPAddr)
	s := &Server{vitals: newVitals(cfg, ok && tcp.IP.IsLoopback()), listener: listener}
	if s.guard.open() && !s.guard.loopback {
		return nil, errors.Join(ErrUnprotected, listener.Close())
	}
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

// SetAccess puts a password and a token in the place of those in Config. Who has shown the old ones is asked again.
func (s *Server) SetAccess(password, token settings.Secret) { s.guard.set(password, token) }

// SetWrong has the overview say which files of secrets were wrong when they were read again, a line each; nil: none.
func (s *Server) SetWrong(lines []string) { s.wrong.Store(&lines) }

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

// handler is everything that the server answers.
func (s *Server) handler() http.Handler {
	inside := http.NewServeMux()
	inside.HandleFunc("GET /{$}", overview())
	inside.HandleFunc("GET /status.json", s.status)
	for _, source := range []letterSource{deadSource(tasks.NewDeadLetters(s.cfg.Redis)), retrySource(tasks.NewRetries(s.cfg.Redis))} {
		l := newLetters(source, s.vitals)
		inside.HandleFunc("GET "+source.path, l.show)
		inside.Handle("GET "+source.path+"/letter", newLetterPage(l))
		if s.cfg.AllowWrite {
			inside.Handle("POST "+source.path, newLetterActs(l))
		}
	}
	newPauses(s.vitals).register(inside)
	inside.Handle(monitorPath, newMonitor(s.cfg.Redis, s.cfg.view(), s.cfg.AllowWrite, s.inRedis))
	if s.cfg.Metrics != nil {
		inside.Handle("GET /metrics", s.cfg.Metrics)
	}
	find := newHistory(tasks.NewLookup(s.cfg.Redis))
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

// warner logs what net/http has to say, such as that a handler panicked.
type warner struct{ log *zerolog.Logger }

func (w warner) Write(p []byte) (int, error) {
	w.log.Warn().Msg(strings.TrimSpace(string(p)))
	return len(p), nil
}
