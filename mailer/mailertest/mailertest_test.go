package mailertest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestRun(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		harness func() Harness
	}{
		{"a harness that tells all", func() Harness {
			_, h := newReference(noFault)
			return h
		}},
		{"without envelopes", func() Harness {
			_, h := newReference(noFault)
			received := h.Received
			h.NoEnvelope = true
			h.Received = func() []Mail {
				mails := received()
				for i := range mails {
					mails[i].Envelope = mailer.Envelope{}
				}
				return mails
			}
			return h
		}},
		{"a backend alone, that is no BatchSender", func() Harness {
			b, _ := newReference(noFault)
			return Harness{Backend: struct{ mailer.Backend }{b}}
		}},
		{"a backend that delivers parts", newPartsReference},
		{"a backend that asks for a whole batch at once", func() Harness {
			_, h := newReference(asksAtOnce)
			h.WholeBatch = true
			return h
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			Run(t, func(t *testing.T) Harness {
				t.Parallel()
				return tt.harness()
			})
		})
	}
}

// faults has for each fault the checks that are about it.
func faults() map[fault][]string {
	return map[fault][]string{
		opensAlways:       {"open_twice", "send_open"},
		opensAgain:        {"open_twice"},
		closeNotOpenFails: {"close_not_open"},
		closeTwiceFails:   {"close_twice"},
		closeDeadFails:    {"close_dead"},
		opensOnlyOnce:     {"reopen"},
		leavesOpen:        {"send_closed"},
		closesOpen:        {"send_open", "send_nothing"},
		dialsPerMessage:   {"one_connection"},
		dialsForNothing:   {"send_nothing"},
		dialsForNobody:    {"send_to_nobody"},
		sendsNobody:       {"send_to_nobody", "nobody_in_batch", "batch"},
		countsNobody:      {"send_to_nobody", "nobody_in_batch"},
		failsNobody:       {"send_to_nobody", "nobody_in_batch"},
		firstBatchOnly:    {"large_batch"},
		sendsTwice:        {"large_batch", "content"},
		stopsAtFailure:    {"bad_header", "bad_address"},
		plainError:        {"bad_header", "bad_address", "cancelled_send", "unreachable"},
		shortErrors:       {"bad_header", "bad_address"},
		shiftedErrors:     {"bad_header", "bad_address"},
		emptyErrors:       {"send_closed", "send_nothing"},
		vagueError:        {"bad_header", "bad_address"},
		countsBad:         {"bad_header", "bad_address", "bad_only"},
		trustsFileNames:   {"bad_header"},
		openAfterFailure:  {"bad_only"},
		reportsTwice:      {"batch"},
		reportsSome:       {"batch"},
		reportsUnskipped:  {"batch"},
		reportsNoError:    {"batch"},
		reportsAlien:      {"batch"},
		groupsForget:      {"batch"},
		batchLeavesOpen:   {"batch_closes"},
		ignoresBegin:      {"begin_refuses", "begin_refuses_all", "begin_order"},
		sendsRefused:      {"begin_refuses", "begin_refuses_all"},
		skipsRefused:      {"begin_refuses", "begin_refuses_all"},
		rewordsRefused:    {"begin_refuses", "begin_refuses_all"},
		stopsAtRefused:    {"begin_refuses"},
		opensForRefused:   {"begin_refuses_all"},
		asksTwice:         {"begin_order"},
		asksBackwards:     {"begin_order"},
		asksSome:          {"begin_order"},
		asksLate:          {"begin_refuses"},
		asksTooLate:       {"begin_refuses"},
		asksAtOnce:        {"begin_turn"},
		ignoresChange:     {"begin_changes"},
		trustsChange:      {"begin_changes"},
		ignoresCommit:     {"commit_refuses", "commit_order"},
		sendsCommitted:    {"commit_refuses"},
		rewordsCommit:     {"commit_refuses"},
		commitsFirst:      {"commit_order"},
		commitsLate:       {"commit_refuses"},
		commitsAtOnce:     {"commit_turn"},
		ignoresDoneOpen:   {"cancelled_open"},
		ignoresDone:       {"cancelled_send", "batch_stopped"},
		swallowsDone:      {"cancelled_send"},
		downSilently:      {"unreachable"},
		downPermanent:     {"unreachable"},
		hidesRefused:      {"refused_recipients"},
		namelessRefused:   {"refused_recipients"},
		doesNotCountSome:  {"refused_recipients"},
		countsRefused:     {"refused_recipients"},
		breaksCharset:     {"content"},
		showsBcc:          {"bcc"},
		dropsBcc:          {"bcc"},
		noDefaults:        {"defaults"},
		fillsInCallers:    {"unchanged"},
		sortsBatch:        {"unchanged"},
		changesRecipients: {"unchanged"},
		keepsMessage:      {"not_kept"},
		badTrace:          {"content"},
		ignoresOnlyTo:     {"only_to"},
		takesRaw:          {"content"},
	}
}

// A backend that delivers parts is found out when one of them is not as it was, or goes to those who must not see it.
func TestChecks_find_each_fault_of_parts(t *testing.T) {
	t.Parallel()
	for f := range partFaults() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			for _, c := range checks() {
				_, h := newReference(f)
				if c.name == "content" && len(c.test(t.Context(), h)) == 0 {
					t.Error("content found nothing wrong")
				}
			}
		})
	}
}

func TestChecks_find_each_fault(t *testing.T) {
	t.Parallel()
	for f, checksAbout := range faults() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			for _, c := range checks() {
				_, h := newReference(f)
				if slices.Contains(checksAbout, c.name) && len(c.test(t.Context(), h)) == 0 {
					t.Errorf("%s found nothing wrong", c.name)
				}
			}
		})
	}
}

// A check that no fault can make fail would be worth nothing.
func TestChecks_can_all_fail(t *testing.T) {
	t.Parallel()
	var failing []string
	for _, names := range faults() {
		failing = append(failing, names...)
	}
	for _, c := range checks() {
		if !slices.Contains(failing, c.name) {
			t.Errorf("no fault makes the check %s fail", c.name)
		}
		failing = slices.DeleteFunc(failing, func(name string) bool { return name == c.name })
	}
	if len(failing) > 0 {
		t.Errorf("there are no checks %q", failing)
	}
}

// TestRun_fails runs this test program once more, with a backend that is wrong.
func TestRun_fails(t *testing.T) {
	t.Parallel()
	const wrong = "MAILERTEST_WRONG_BACKEND"
	if f := os.Getenv(wrong); f != "" {
		Run(t, func(*testing.T) Harness {
			_, h := newReference(fault(f))
			return h
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRun_fails$")
	cmd.Env = append(os.Environ(), wrong+"="+string(countsNobody))
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("Run found nothing wrong:\n%s", out)
	}
	for _, want := range []string{
		"--- FAIL: TestRun_fails/nobody_in_batch",
		"a message without recipients is not sent, is not counted and is no failure: SendMessages of 4 messages: sent 4, want 2",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output has no %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "--- FAIL: TestRun_fails/open_twice") {
		t.Errorf("open_twice failed too:\n%s", out)
	}
}
