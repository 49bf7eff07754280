// Package pages is the worker's HTTP server: its probes, metrics, pages that show
// how the mail flows and what has failed, and asynqmon, which shows the tasks behind it.
//
//	/healthz      200 while the process lives
//	/readyz       200 while mail flows: Redis answers, no relay is held, the worker is not ending
//	/metrics      for Prometheus
//	/             the first page, kept up to date by /status.json
//	/dead         dead letters: filtered, grouped by reason, replayed, deleted, exported
//	/retries      the same of what will be tried again
//	/history      where a message is, or what became of it, by ID, Message-ID or recipient
//	/pauses       what is paused, with buttons if they are allowed
//	/monitor/     asynqmon
//
// Everything that comes from a message or from a mail server is hostile: it is cut, freed of
// control characters, and put into the page as text alone. Addresses are masked unless
// the settings allow them.
//
// A page has a type, a template and a file of its own. All have the frame of layout.html, run no script but their own, and
// know the worker and Redis by vitals, which server.go hands them.
//
// Nothing here holds up the mail: State takes in a few numbers for each message, and
// Redis is asked only when somebody looks, once a second at most.
package pages
