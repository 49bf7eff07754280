package pages

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// readiness is what /readyz tells a stranger: no names, and no reasons.
type readiness struct {
	Ready  bool   `json:"ready"`
	Worker string `json:"worker"`  // running or ending
	Redis  string `json:"redis"`   // ok, unreachable, or refuses writes
	Mailer string `json:"mailers"` // ok or held
}

// detail is what it tells who may see the page.
type detail struct {
	readiness

	RedisError string            `json:"redis_error,omitempty"`
	Held       map[string]string `json:"held,omitempty"` // why, by mailer
}

// health reports that the process lives, and nothing more. A worker that waits for its Redis
// or its relay must not be killed.
func (s *vitals) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready reports whether mail flows. It writes to Redis, which may answer and refuse all the same, but does not ask
// the relays: the worker probes those itself, with growing pauses, and its answer is used.
func (s *vitals) ready(w http.ResponseWriter, r *http.Request) {
	reply := detail{readiness: readiness{Worker: "running", Redis: "ok", Mailer: "ok"}}
	if s.ending() {
		reply.Worker = "ending"
	}
	if _, err := s.write.get(r.Context()); err != nil {
		reply.Redis, reply.RedisError = "unreachable", s.cfg.view().Text(err.Error(), maxReason)
		var refused *redisconn.RefusedError
		if errors.As(err, &refused) {
			reply.Redis = "refuses writes"
		}
	}
	for name, why := range s.cfg.Held() {
		if reply.Mailer = "held"; reply.Held == nil {
			reply.Held = map[string]string{}
		}
		if name == "" {
			name = "default"
		}
		reply.Held[name] = s.cfg.view().Text(why.Error(), maxReason)
	}
	code := http.StatusServiceUnavailable
	if reply.Worker == "running" && reply.Redis == "ok" && reply.Mailer == "ok" {
		reply.Ready, code = true, http.StatusOK
	}
	if s.guard.trusts(r) {
		writeJSON(w, code, reply)
		return
	}
	writeJSON(w, code, reply.readiness)
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // whoever went away needs no answer
}
