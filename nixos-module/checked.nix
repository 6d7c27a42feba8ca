# The mapping as a file, looked through by `opnix check`: a wrong one fails the build, not the boot.
{ pkgs, package, content, others ? [ ] }:
let
  json = (pkgs.formats.json { }).generate "secrets.json" content;
in
rec {
  # Built for another machine, opnix does not run here.
  canRun = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
  file = pkgs.runCommand "opnix-secrets.json" { } ''
    ${if canRun then "${package}/bin/opnix check --quiet --config ${json} ${toString (map (file: "--config ${file}") others)}" else ""}
    cp ${json} $out
  '';
  warnings = if canRun then [ ] else [
    "opnix was built for another machine and does not run here: nobody has looked through its mapping. Run `opnix check` there before you switch."
  ];
}
