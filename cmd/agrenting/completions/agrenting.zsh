#compdef agrenting
_agrenting() {
	local line
	local -a lines described
	lines=("${(@f)$("${words[1]}" __complete --describe -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ "${words[CURRENT]}" == --*=* ]]; then
		compset -P 1 '*='
	fi
	for line in "${lines[@]}"; do
		case "$line" in
		'') ;;
		:files) _files ;;
		:folders) _files -/ ;;
		:commands) _command_names -e ;;
		*$'\t'*) described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
		*) described+=("${line//:/\\:}") ;;
		esac
	done
	if (( $#described )); then
		_describe 'agrenting' described
	fi
}
if [[ "${funcstack[1]}" == _agrenting ]]; then # loaded from fpath by the first Tab
	_agrenting "$@"
else
	if (( ! $+functions[compdef] )); then
		autoload -Uz compinit && compinit -i -D
	fi
	compdef _agrenting agrenting
fi
