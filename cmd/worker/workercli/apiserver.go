package workercli

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"

	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/internal/certfile"
)

// apiServer is where the JSON API listens.
type apiServer struct {
	url     string
	http    *http.Server
	log     zerolog.Logger
	serving sync.WaitGroup
}

// apiConnections is how many clients may be connected to the API at the same time, as EMAIL_SUBMISSION_CONNECTIONS is over SMTP.
const apiConnections = 1000

// serveAPI listens at an address, with a certificate over TLS. More than so many connections wait to be taken: each of them is an open
// file, and the worker needs some for its own.
func serveAPI(ctx context.Context, addr string, connections int, c *certfile.Certificate, h *httpapi.Handler, logger zerolog.Logger) (*apiServer, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l = netutil.LimitListener(l, connections)
	s := &apiServer{http: h.Server(), log: logger, url: "http://" + l.Addr().String()}
	s.http.ErrorLog = log.New(quiet{logger}, "", 0)
	serve := s.http.Serve
	if c != nil {
		s.url = "https://" + l.Addr().String()
		s.http.TLSConfig = c.Config()
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	s.serving.Go(func() {
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			logger.Error().Err(err).Msg("no mail is taken over HTTP any more")
		}
	})
	return s, nil
}

// end ends the server when the requests under way are answered, or ctx ends.
func (s *apiServer) end(ctx context.Context) {
	if s == nil {
		return
	}
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Warn().Err(err).Msg("requests to the API were cut off")
		_ = s.http.Close()
	}
	s.serving.Wait()
}

// quiet logs what net/http has to say of its clients, such as that one speaks no TLS, where it disturbs nobody.
type quiet struct{ log zerolog.Logger }

func (q quiet) Write(p []byte) (int, error) {
	q.log.Debug().Msg("API: " + string(p))
	return len(p), nil
}
