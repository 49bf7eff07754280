package workercli

import (
	"sync"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/internal/outgoing"
	"github.com/mailpouch/mailpouch/mailer"
)

// sourceOf returns where a backend has its OAuth 2 tokens from, nil if it has none.
func sourceOf(backend mailer.Backend) *oauth.Source {
	b, ok := outgoing.Unwrap(backend).(*smtp.Backend)
	if !ok {
		return nil
	}
	source, _ := b.TokenSource().(*oauth.Source)
	return source
}

// tokensWatched makes watchers hear what becomes of the tokens of the backends that connect makes. Those of a mailer share a source; it is another
// one when files of secrets were read again.
func tokensWatched(connect func(string) (mailer.Backend, error), watchers ...func(mailer string) func(oauth.Event)) func(string) (mailer.Backend, error) {
	var mu sync.Mutex
	known := map[string]*oauth.Source{}
	return func(name string) (mailer.Backend, error) {
		backend, err := connect(name)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if source := sourceOf(backend); source != nil && source != known[name] {
			known[name] = source
			for _, w := range watchers {
				source.Watch(w(name))
			}
		}
		return backend, nil
	}
}

// sayTokens logs what a person has to know of tokens: a refresh token that could not be kept, and once that the provider gives none
// though there is a good one yet. Where there is none any more the mailer is held, which is logged.
func sayTokens(log zerolog.Logger) func(string) func(oauth.Event) {
	return func(name string) func(oauth.Event) {
		log := log
		if name != "" {
			log = log.With().Str("mailer", name).Logger()
		}
		failing := false
		return func(e oauth.Event) {
			if e.NotKept != nil {
				log.Error().Err(e.NotKept).Msg("the provider has given another refresh token, and it cannot be written to its file: when this worker ends, somebody has to agree again (worker oauth login)")
			}
			switch {
			case e.Err != nil && !failing:
				log.Warn().Str("error", e.Err.Error()).Msg("no new OAuth 2 token: asking again now and then")
			case e.Err == nil && failing:
				log.Info().Msg("there is an OAuth 2 token again")
			}
			failing = e.Err != nil
		}
	}
}
