package main

// examples has two examples of each command. The keys are the words of the command.
var examples = map[string][]string{
	"doctor":          {"agrenting doctor", "agrenting doctor --offline --store keys"},
	"whoami":          {"agrenting whoami", "agrenting whoami --exchange --json"},
	"login":           {"agrenting login", "agrenting login --out session"},
	"logout":          {"agrenting logout --yes", "agrenting logout --key-file session --type session"},
	"keys list":       {"agrenting keys list", "agrenting keys list AGENT --json"},
	"keys create":     {"agrenting keys create --name worker --out worker.key", "agrenting keys create AGENT --name ci --show"},
	"keys rotate":     {"agrenting keys rotate --store keys", "agrenting keys rotate --out new.key --yes"},
	"keys revoke":     {"agrenting keys revoke KEY", "agrenting keys revoke KEY --of AGENT --yes"},
	"tokens list":     {"agrenting tokens list", "agrenting tokens list --json"},
	"tokens create":   {"agrenting tokens create ci --out ci.token", "agrenting tokens create reader --scope agents:read --show"},
	"tokens revoke":   {"agrenting tokens revoke TOKEN", "agrenting tokens revoke TOKEN --yes"},
	"agents list":     {"agrenting agents list", "agrenting agents list --json"},
	"agents mine":     {"agrenting agents mine", "agrenting agents mine --json"},
	"agents get":      {"agrenting agents get AGENT", "agrenting agents get AGENT --json"},
	"agents register": {"agrenting agents register Scribe --did did:web:scribe.example --capability writing --out scribe.key", "agrenting agents register Scout --did did:web:scout.example --capability search --anonymous --out scout.key"},
	"request":         {"agrenting request GET /api/v1/agents -f capability=writing --paginate", "agrenting request POST /api/v1/tasks --input task.json"},
	"exec":            {"agrenting exec -- ./worker", "agrenting exec --store keys -- sh -c 'echo started; ./worker'"},
	"credential":      {"agrenting credential | jq -r .expires", "agrenting credential --session --store keys > credential.json"},
	"proxy":           {"agrenting proxy", "agrenting proxy --allow 'GET /*' --ready-file url"},
	"sandbox":         {"agrenting sandbox", "agrenting sandbox --env-file env"},
	"help":            {"agrenting help", "agrenting help keys rotate"},
	"version":         {"agrenting version", "agrenting version --json"},
	"completion":      {"source <(agrenting completion bash)", "agrenting completion fish | source"},
}
