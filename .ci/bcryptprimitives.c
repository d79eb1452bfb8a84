/*
 * The one function of bcryptprimitives.dll that Go programs need. Wine has that
 * library since version 9 only.
 */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
	while (length > 0) {
		ULONG part = length < 0x10000000 ? (ULONG)length : 0x10000000;

		if (!RtlGenRandom(data, part)) /* SystemFunction036 of advapi32.dll */
			return FALSE;
		data += part;
		length -= part;
	}
	return TRUE;
}
