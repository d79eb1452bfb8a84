_agrenting() {
	local program=${COMP_WORDS[0]} cursor=${COMP_CWORD} rest=${COMP_LINE#*"${COMP_WORDS[0]}"} n=0 i
	local word description value gap head prefix="" separators='^[=:]+$'
	local -a words=() names=() lines=()
	# Bash splits words at "=" and ":". They belong together unless there is space between them.
	for ((i = 1; i <= cursor; i++)); do
		word=${COMP_WORDS[i]}
		gap=${rest%%[![:space:]]*}
		rest=${rest#*"$word"}
		if ((n)) && [[ -z $gap && ($word =~ $separators || ${COMP_WORDS[i - 1]} =~ $separators) ]]; then
			words[n - 1]+=$word
		else
			words[n]=$word
			n=$((n + 1))
		fi
	done
	value=${words[n - 1]}
	# Bash replaces only the part after the last separator.
	head=$value
	[[ $word =~ $separators ]] || head=${value%"$word"}
	if [[ $value == --*=* ]]; then
		prefix=${value%%=*}=
		value=${value#*=}
	fi
	COMPREPLY=()
	while IFS=$'\t' read -r word description; do
		case $word in
		:files)
			compopt -o filenames 2>/dev/null
			while IFS= read -r word; do names+=("$prefix$word"); done < <(compgen -f -- "$value")
			;;
		:folders)
			compopt -o filenames 2>/dev/null
			while IFS= read -r word; do names+=("$prefix$word"); done < <(compgen -d -- "$value")
			;;
		:commands)
			while IFS= read -r word; do names+=("$prefix$word"); done < <(compgen -c -- "$value")
			;;
		*)
			names+=("$prefix$word")
			[[ -z $description ]] || lines[${#names[@]} - 1]=$description
			;;
		esac
	done < <("$program" __complete --describe -- "${words[@]}" 2>/dev/null)
	for i in "${!names[@]}"; do
		names[i]=${names[i]#"$head"}
	done
	if [[ ${#lines[@]} -gt 1 && ${COMP_TYPE:-9} == [36]3 ]]; then # a list is shown
		for i in "${!lines[@]}"; do
			printf -v 'names[i]' '%-24s  %s' "${names[i]}" "${lines[i]}"
		done
	fi
	COMPREPLY=("${names[@]}")
}
complete -F _agrenting agrenting
