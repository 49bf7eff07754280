package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/settings"
)

// djangoNames are the names that somebody who comes from Django may look for.
//
//nolint:misspell // Django's spelling
var djangoNames = strings.Fields(`
	send_mail send_mass_mail mail_admins mail_managers get_connection make_msgid forbid_multi_line_headers sanitize_address
	recipient_list datatuple html_message fail_silently auth_user auth_password connection using

	EmailMessage EmailMultiAlternatives EmailAttachment EmailAlternative SafeMIMEText SafeMIMEMultipart SafeMIMEMessage
	subject body from_email to cc bcc reply_to headers extra_headers attachments alternatives content_subtype encoding
	mixed_subtype alternative_subtype send message as_string as_bytes recipients attach attach_file attach_alternative
	body_contains DEFAULT_ATTACHMENT_MIME_TYPE ADDRESS_HEADERS RFC5322_EMAIL_LINE_LENGTH_LIMIT DNS_NAME CachedDnsName

	BadHeaderError SMTPException SMTPRecipientsRefused ImproperlyConfigured MailerDoesNotExist InvalidMailer

	BaseEmailBackend open close send_messages __enter__ __exit__ smtp.EmailBackend console.EmailBackend
	filebased.EmailBackend locmem.EmailBackend dummy.EmailBackend SMTPConnection host port username password use_tls
	use_ssl timeout ssl_certfile ssl_keyfile file_path stream outbox sent_using

	EMAIL_BACKEND EMAIL_FILE_PATH EMAIL_HOST EMAIL_PORT EMAIL_HOST_USER EMAIL_HOST_PASSWORD EMAIL_USE_TLS EMAIL_USE_SSL
	EMAIL_SSL_CERTFILE EMAIL_SSL_KEYFILE EMAIL_TIMEOUT EMAIL_USE_LOCALTIME EMAIL_SUBJECT_PREFIX DEFAULT_FROM_EMAIL
	SERVER_EMAIL DEFAULT_CHARSET ADMINS MANAGERS
	MAILERS BACKEND OPTIONS mailers mailers.default mailers.get alias DEFAULT_MAILER_ALIAS

	sendtestemail AdminEmailHandler include_html email_backend reporter_class BrokenLinkEmailsMiddleware
	override_settings setup_test_environment task enqueue run_after queue_name
`)

var quoted = regexp.MustCompile("`([^`]+)`")

// Each name of Django has its row, and each name of ours exists.
func TestDocs_django(t *testing.T) {
	t.Parallel()
	own := collectNames(t)
	var theirs []string
	for _, line := range strings.Split(read(t, "../../../docs/django.md"), "\n") {
		if !strings.HasPrefix(line, "|") {
			own.want(t, line, line)
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 3 {
			t.Errorf("not three cells: %s", line)
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
			if slices.Contains(theirs, m[1]) {
				t.Errorf("Django's %s has two rows", m[1])
			}
			theirs = append(theirs, m[1])
		}
		own.want(t, cells[1]+cells[2], line)
	}
	for _, name := range djangoNames {
		if !slices.Contains(theirs, name) {
			t.Errorf("Django's %s has no row", name)
		}
	}
}

// The test above can tell what exists from what does not.
func TestDocs_django_lookup(t *testing.T) {
	t.Parallel()
	own := collectNames(t)
	for _, name := range []string{
		"mailer.EmailMessage", "mailer.EmailMessage.Attach", "mailer.EmailMessage.To", "mailer.Backend.Open",
		"mailer.Unknown", "mailer.New", "backends.Registry.Mailer", "EMAIL_HOST", "EMAIL_BACKEND=queue", "enqueue test",
		"worker check", "worker check --help",
	} {
		if !own.has(name) {
			t.Errorf("%s is not found", name)
		}
	}
	for _, name := range []string{
		"mailer.NoSuch", "mailer.EmailMessage.NoSuch", "EmailMessage", "nosuch.New", "mailer.newMessage",
		"mailer.EmailMessage.only", "EMAIL_HSOT", "EMAIL_HSOT=x", "enqueue nothing", "worker enqueue", "",
	} {
		if own.has(name) {
			t.Errorf("%s is found", name)
		}
	}
}

// names are what a program can use of this project: "mailer.EmailMessage.To", a
// setting, or a command such as "enqueue test".
type names map[string]bool

// has looks a name up as docs/django.md writes it: a setting may have a value, a command flags.
func (n names) has(name string) bool {
	if setting, _, ok := strings.Cut(name, "="); ok {
		return n[setting]
	}
	command, _, _ := strings.Cut(name, " -")
	return n[command]
}

// want checks every name of ours in text, which is a part of line.
func (n names) want(t *testing.T, text, line string) {
	t.Helper()
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		if !n.has(m[1]) {
			t.Errorf("there is no %s here: %s", m[1], line)
		}
	}
}

func collectNames(t *testing.T) names {
	t.Helper()
	n := names{}
	for _, s := range settings.Describe(settings.Default()) {
		n[s.Name] = true
	}
	for _, line := range goList(t, `{{.ImportPath}} {{.Name}} {{.Dir}} {{join .GoFiles " "}}`, module+"/...") {
		words := strings.Fields(line)
		path, pkg, dir := strings.TrimPrefix(words[0], module+"/"), words[1], words[2]
		if strings.HasPrefix(path, "internal/") {
			continue
		}
		for _, name := range words[3:] {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if command, ok := strings.CutPrefix(path, "cmd/"); ok {
				program, _, _ := strings.Cut(command, "/")
				n.addCommands(program, file)
			}
			n.addDeclarations(pkg, file)
		}
	}
	return n
}

// addDeclarations adds what the file exports.
func (n names) addDeclarations(pkg string, file *ast.File) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			n.addFunc(pkg, d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				n.addSpec(pkg, spec)
			}
		}
	}
}

func (n names) add(scope string, ids ...*ast.Ident) {
	for _, id := range ids {
		if id.IsExported() {
			n[scope+"."+id.Name] = true
		}
	}
}

func (n names) addFunc(pkg string, f *ast.FuncDecl) {
	if f.Recv == nil {
		n.add(pkg, f.Name)
		return
	}
	receiver := f.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if id, ok := receiver.(*ast.Ident); ok {
		n.add(pkg+"."+id.Name, f.Name)
	}
}

func (n names) addSpec(pkg string, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		n.add(pkg, s.Names...)
	case *ast.TypeSpec:
		n.add(pkg, s.Name)
		var members *ast.FieldList
		switch typ := s.Type.(type) {
		case *ast.StructType:
			members = typ.Fields
		case *ast.InterfaceType:
			members = typ.Methods
		default:
			return
		}
		for _, m := range members.List {
			n.add(pkg+"."+s.Name.Name, m.Names...)
		}
	}
}

// addCommands finds the subcommands in the Use fields of cobra commands.
func (n names) addCommands(program string, file *ast.File) {
	ast.Inspect(file, func(node ast.Node) bool {
		field, ok := node.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, ok := field.Key.(*ast.Ident)
		value, ok2 := field.Value.(*ast.BasicLit)
		if ok && ok2 && key.Name == "Use" {
			if use, err := strconv.Unquote(value.Value); err == nil {
				name, _, _ := strings.Cut(use, " ")
				n[program+" "+name] = true
			}
		}
		return true
	})
}
